"""A search and a promotion of which people are told by e-mail, with a retry that they hear nothing of."""

from __future__ import annotations

from datetime import timedelta

from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import DAG, chain

from tune_tasks_airflow.launch import TuneOperator
from tune_tasks_airflow.notifications import StudyNotifier
from tune_tasks_airflow.operators import PromoteBestOperator

mail = SmtpNotifier(
    to="team@example.org",
    from_email="airflow@example.org",
    subject="[{{ dag.dag_id }}] {{ message.title }}",
    html_content="{{ message.html }}",
)
told = {"on_success_callback": StudyNotifier(mail), "on_failure_callback": StudyNotifier([mail])}

with DAG("notified", schedule=None, params={"spec": ""}, default_args={"retries": 1, "retry_delay": timedelta(0)}):
    search = TuneOperator(task_id="search", study="{{ params.spec }}", on_failure_callback=StudyNotifier(mail))
    chain(search, PromoteBestOperator(task_id="promote", study="{{ params.spec }}", **told))
