"""Which model becomes the champion, and what is known of those that were: the promote step and what stands around it.

`promote` carries a promotion out, after `contest` has measured and compared (`measuring`) and a person has agreed
where one must (`approval`); `leaderboard` shows it, `championship` the history. This module must not import them.
"""
