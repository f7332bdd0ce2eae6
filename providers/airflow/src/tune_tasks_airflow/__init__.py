"""The four tasks of tune_tasks as Airflow operators.

This module must not import Airflow: Airflow loads it while it looks for providers, before it is set up itself.
"""
