"""The jobs of a Ray cluster, over the HTTP interface of its dashboard: submitted, found, followed, stopped.

A run has one job at a time. Jobs are named after it, with a number that counts attempts; whoever submits
while one is at work is given that one.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from cluster.session import SessionError

HERE = "http://127.0.0.1:8265"
REFRESH_S = 1.0
YOUNG_S = 60.0
"""How long a cluster that has just started may take until it accepts jobs."""
PATIENCE_S = 120.0
"""How long a dashboard may be away while a job is followed."""
INTERRUPTED = 130
YOUNG = "No available agent"


class Submissions:
    """The jobs of the cluster whose dashboard is at an address."""

    def __init__(self, address: str | None) -> None:
        """Connect to `HOST:PORT`, a URL, or what RAY_API_SERVER_ADDRESS or RAY_ADDRESS names; SessionError
        when nobody answers, or the token is refused."""
        if address is not None:  # only this variable takes precedence over RAY_ADDRESS
            os.environ["RAY_API_SERVER_ADDRESS"] = address if "://" in address else f"http://{address}"
        self.address = os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS") or HERE
        with self._answering():
            self.client = JobSubmissionClient(self.address)

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except AuthenticationError as error:
            said = str(error).splitlines()[0]
            raise SessionError(
                f"Ray's jobs at {self.address}: {said}; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
            ) from None
        except (OSError, RuntimeError, ValueError) as error:
            said = " ".join(str(error).split())[:300]
            raise SessionError(f"Ray's jobs at {self.address}: {said}") from None

    def attempts(self, name: str) -> list[JobDetails]:
        """Jobs of a run that the cluster remembers, oldest first."""
        with self._answering():
            jobs = [job for job in self.client.list_jobs() if _number(job, name)]
        return sorted(jobs, key=lambda job: _number(job, name))

    def running(self, name: str) -> JobDetails | None:
        """The job of a run that has not ended."""
        return next((job for job in self.attempts(name) if not job.status.is_terminal()), None)

    def submit(self, name: str, entrypoint: str, environment: dict[str, Any], cpus: float) -> str:
        """Start a job for a run, and return its id; that of another that was faster."""
        before = self.attempts(name)
        number = 1 + max((_number(job, name) for job in before), default=0)
        end = time.monotonic() + YOUNG_S
        while True:
            try:
                with self._answering():
                    return self.client.submit_job(
                        entrypoint=entrypoint,
                        submission_id=f"{name}-{number}",
                        runtime_env=environment,
                        entrypoint_num_cpus=cpus,
                        metadata={"run": name},
                    )
            except SessionError as error:
                other = self.running(name)
                if other is not None:
                    return str(other.submission_id)
                if YOUNG not in str(error) or time.monotonic() > end:
                    raise
            time.sleep(REFRESH_S)

    def follow(self, job: str, say: Callable[[str], object]) -> JobDetails:
        """Pass on what a job says until it has ended, and return how."""
        said, end = 0, time.monotonic() + PATIENCE_S
        while True:
            try:
                with self._answering():
                    info = self.client.get_job_info(job)
                    log = self.client.get_job_logs(job)
            except SessionError:
                if time.monotonic() > end:
                    raise
            else:
                end = time.monotonic() + PATIENCE_S
                if len(log) > said:
                    say(log[said:])
                    said = len(log)
                if info.status.is_terminal():
                    return info
            time.sleep(REFRESH_S)

    def stop(self, job: str) -> JobDetails:
        """Ask a job to end, wait until it has, and return how."""
        with self._answering():
            self.client.stop_job(job)
        return self.follow(job, lambda _: None)


def _number(job: JobDetails, name: str) -> int:
    """Which attempt of a run a job is; 0 for jobs of other runs."""
    start, _, number = (job.submission_id or "").rpartition("-")
    return int(number) if start == name and number.isdecimal() else 0


def exit_status(job: JobDetails) -> int:
    """The exit status of a job's command, as of the same command here."""
    if job.status == JobStatus.SUCCEEDED:
        return 0
    if job.status == JobStatus.STOPPED:
        return INTERRUPTED
    return job.driver_exit_code if job.driver_exit_code in {1, 2, INTERRUPTED} else 1
