"""Every ceiling that both ends of a link must know.

Each limit has a name, a default and a unit in its name. Policy that only one daemon needs lives
in that daemon's configuration. ``docs/reference/limits.md`` lists them all. Errors that refuse
something because of a limit quote the limit's name and its value.
"""

from __future__ import annotations

from typing import Final

# -- the wire ---------------------------------------------------------------------------------
PREAUTH_PAYLOAD_BYTES: Final = 4 * 1024
"""Largest payload of a frame before the handshake is complete."""
FRAME_PAYLOAD_BYTES: Final = 8 * 1024 * 1024
"""Largest payload of any frame after the handshake."""
BULK_CHUNK_BYTES: Final = 64 * 1024
"""Largest piece of log or artifact data in one frame."""
OUTBOX_CONTROL_BYTES: Final = 16 * 1024 * 1024
OUTBOX_BULK_BYTES: Final = 8 * 1024 * 1024
EXCHANGES_PER_LINK: Final = 10_000
"""Requests that may be open at once on one link."""
HANDSHAKE_TIMEOUT_MS: Final = 10_000
NONCE_BYTES: Final = 32

# -- names ------------------------------------------------------------------------------------
JOB_ID_CHARS: Final = 128
NAME_CHARS: Final = 128
"""Run and pipeline names: free text, never part of a path."""
SLUG_CHARS: Final = 40
SKILL_CHARS: Final = 64
SUBMIT_KEY_CHARS: Final = 128

# -- what a run may hold ----------------------------------------------------------------------
JOBS_PER_RUN: Final = 100_000
DEPENDENCIES_PER_JOB: Final = 100_000
INLINE_SPEC_BYTES: Final = 1024 * 1024
"""A larger RunSpec travels as an artifact and is named by digest in the submission."""
RUN_SPEC_BYTES: Final = 256 * 1024 * 1024
"""A run's whole description: it is decoded in memory, and becomes one record of the journal."""
DAG_STRING_BYTES: Final = 16 * 1024 * 1024
"""A raw DAG string, which holds its scripts."""
JOB_SPEC_BYTES: Final = 1024 * 1024
ENV_BYTES: Final = 128 * 1024
ARGS_BYTES: Final = 256 * 1024
SKILLS_PER_JOB: Final = 16
PRIORITY_MAX: Final = 10
PRIORITY_DEFAULT: Final = 5
DELAY_MS: Final = 366 * 24 * 3600 * 1000
AT_MS: Final = 253_402_300_799_000
"""The last moment that may be named: the end of the year 9999."""
CRON_CHARS: Final = 256
"""Of a schedule's text."""
EVERY_MS_MIN: Final = 1_000
EVERY_MS: Final = 366 * 24 * 3600 * 1000
"""The rarest that `@every` can be."""
SCHEDULES: Final = 1_000
SCHEDULE_CRONS: Final = 16
"""Lines of times that one schedule may have."""
SCHEDULE_SPEC_BYTES: Final = INLINE_SPEC_BYTES
"""What a schedule runs: each of its runs is a record of the journal with all of that in it."""
CATCHUP_WINDOW_MS_DEFAULT: Final = 24 * 3600 * 1000
CATCHUP_WINDOW_MS: Final = 366 * 24 * 3600 * 1000
CATCHUP_SLOTS: Final = 100
"""So many missed slots are caught up with at once, the newest of them."""
SLOT_GRACE_MS: Final = 10_000
"""A slot that could not be fired for so long is not missed yet, only late."""
SLOTS_WAITING: Final = 100
"""Slots of one schedule that may wait for its run to end."""
JITTER_MS: Final = 24 * 3600 * 1000
STOP_GRACE_MS_DEFAULT: Final = 10_000
STOP_GRACE_MS: Final = 3_600_000
RETRIES: Final = 100
"""How often a job may be tried again after failures of its own."""
RETRY_DELAY_MS_DEFAULT: Final = 1_000
RETRY_DELAY_MS_MAX_DEFAULT: Final = 60_000
RETRY_DELAY_MS: Final = 24 * 3600 * 1000
BACKOFF_PERCENT_DEFAULT: Final = 200
BACKOFF_PERCENT_MIN: Final = 100
BACKOFF_PERCENT: Final = 1_000
TIMEOUT_MS: Final = 366 * 24 * 3600 * 1000
GATE_TIMEOUT_MS_DEFAULT: Final = 48 * 3600 * 1000
RESTARTS: Final = 1_000
"""The highest `restart.max` that may be asked for."""
RESTART_MAX_DEFAULT: Final = 5
RESTART_WITHIN_MS_DEFAULT: Final = 10 * 60_000
RESTART_DELAY_MS_DEFAULT: Final = 1_000
RESTART_DELAY_MS_MAX_DEFAULT: Final = 60_000
RESTART_WELL_MS: Final = 60_000
"""A service that was healthy for so long is forgiven its earlier restarts."""
SERVICE_MOVES: Final = 3
"""A service that failed where it was is given to another worker so often, before it is FAILED."""
HEALTH_INTERVAL_MS_DEFAULT: Final = 10_000
HEALTH_INTERVAL_MS_MIN: Final = 100
HEALTH_TIMEOUT_MS_DEFAULT: Final = 5_000
HEALTH_RETRIES_DEFAULT: Final = 3
HEALTH_RETRIES: Final = 1_000
HEALTH_COMMAND_BYTES: Final = 4_096
HEALTH_MS: Final = 24 * 3600 * 1000
"""Each of the times of a health check, at most."""
REPLICAS: Final = 1_000
"""Instances of a service."""
SLOTLESS_PER_WORKER: Final = 1_000
"""Services that take no slot; beside what fills its slots, a worker has at most so many attempts."""
CPU_MILLI_MIN: Final = 10
"""A hundredth of a core: the least that a kernel can be asked to hold a job to."""
CPU_MILLI: Final = 4_096_000
MEMORY_BYTES_MIN: Final = 4 * 1024 * 1024
MEMORY_BYTES: Final = 64 * 1024**4
PIDS: Final = 4_194_304
RESOURCE_CHARS: Final = 64
"""Of the name of a counted resource."""
RESOURCES_PER_JOB: Final = 16
"""Kinds of counted resources that a job may ask for, and a worker may have four times as many."""
RESOURCES_PER_WORKER: Final = 4 * RESOURCES_PER_JOB
WORKER_NAME_CHARS: Final = 300
"""Of the worker that a job is pinned to: a host's name and a port."""
GROUP_CHARS: Final = 64
"""Of the name of a concurrency group."""
CONCURRENCY: Final = 1_000_000
"""The highest limit of a group."""
RESOURCE_AMOUNT: Final = 1_000_000_000
"""Of a counted resource other than memory: of `gpu` and named ones in units, of `cpu` in thousandths."""
GATE_MESSAGE_CHARS: Final = 4_000
DECISION_CHARS: Final = 4_000
"""What is said beside an approval or a rejection."""

# -- bytes ------------------------------------------------------------------------------------
REPORT_MESSAGE_CHARS: Final = 4_000
"""What a worker says of an attempt in words; more is cut."""
REPORTS_PER_FRAME: Final = 1_000
"""So many reports, each with a message of that length, fit into a frame."""
REPORT_BYTES_PER_FRAME: Final = 4 * 1024 * 1024
"""Reports to the master are split over frames of about so much, where their outputs make them long."""
ORDER_BYTES_PER_FRAME: Final = 4 * 1024 * 1024
"""Orders to a worker are split over frames of about so much."""
ARTIFACT_BYTES: Final = 1024 * 1024 * 1024
WORKSPACE_BYTES: Final = 256 * 1024 * 1024
"""What a packed project folder may weigh before compression."""
ARCHIVE_ENTRIES: Final = 10_000
OUTPUTS_PER_JOB: Final = 64
"""Small values that a job may hand on to those that depend on it."""
OUTPUT_KEY_CHARS: Final = 64
PARAMS_PER_RUN: Final = 100
MATRIX_CELLS: Final = 10_000
"""Cells of one matrix, before any are excluded."""
MATRIX_EDGES: Final = 1_000_000
"""Dependencies of all jobs and cells of a run with a matrix, together."""
WHEN_CHARS: Final = 1_000
"""Of one `when`."""
WHEN_DEPTH: Final = 20
"""Parentheses and `not` inside each other, in one `when`."""
OUTPUT_VALUE_BYTES: Final = 8 * 1024
OUTPUTS_BYTES: Final = 32 * 1024
"""All keys and values of a job together: they stay in the master's memory while its run is live."""
OUTPUT_FILE_BYTES: Final = 256 * 1024
"""What is read of the file that a job writes them to, with comments and values written over."""
OUTPUTS_FROM_AFAR: Final = 1_000
"""Jobs of a run whose outputs are used by others than their direct dependants."""
OUTPUTS_PER_RUN_BYTES: Final = 64 * 1024 * 1024
"""Outputs of all jobs of a live run together, those taken over from the run it repeats included."""
FILES_LEFT_PER_JOB: Final = 10_000
"""Files that one attempt may leave for others: new or changed in the shared folder, or handed out."""
FILES_LEFT_BYTES: Final = ARTIFACT_BYTES
"""What they may weigh together."""
FILE_LIST_BYTES: Final = 32 * 1024 * 1024
"""The list of them, small files included."""
LAYERS_PER_RUN: Final = 10_000
"""Jobs of a run that leave files in its shared folder for others."""
RERUN_ANCESTORS: Final = 16
"""Runs before the one that is repeated whose shared folders may stand in for its own."""
ARTIFACT_PATTERNS: Final = 100
"""Paths and patterns of one job's `artifacts`, each of `out` and `in`."""
ARTIFACT_KEEP_MS: Final = 30 * 24 * 3_600_000
"""For so long the master keeps an artifact that nobody wants, unless that was told otherwise: as long a
run can be run again after its end."""
ARTIFACT_KEEP_MIN_MS: Final = 3_600_000
"""So long at least, however full they are: a run whose files are being sent is not known yet."""
ARTIFACTS_BYTES: Final = 64 * 1024**3
"""What the master's artifacts may weigh together, unless that was told otherwise, before those that nobody
wants go sooner."""
LOG_BYTES_PER_ATTEMPT: Final = 256 * 1024 * 1024
"""Kept of both outputs of an attempt together, at its worker and at the master, unless that was told
otherwise: their beginnings and their ends."""
LOG_BYTES_PER_ATTEMPT_MIN: Final = 1024 * 1024
LOG_OFFSET: Final = 8 * 1024**4
"""What is printed behind that is not shipped: it is near the longest file that common disks can hold."""
DATAGRAM_LOG_BYTES: Final = 1_200
"""Of a log in one datagram: with what is round it, it fits any network whole."""
FILE_NAME_BYTES: Final = 200
"""Of a name in ``perm_files/``, with a slash or a per cent sign counted as three."""
FILE_VERSIONS: Final = 10
"""Of one name, with what it stands for now; the oldest go, those that runs brought first."""
FILE_VERSIONS_BYTES: Final = 1024 * 1024 * 1024
"""What they may weigh together; the newest and the one before it are kept whatever they weigh."""
NAMED_FILES: Final = 10_000
"""Names that submissions and uploads may make; and so many files a list shows."""
STAGED_FILES_PER_RUN: Final = 100
STAGED_BYTES_PER_RUN: Final = WORKSPACE_BYTES

# -- lists ------------------------------------------------------------------------------------
PAGE_ITEMS: Final = 1_000
FILE_NAMES_PER_REQUEST: Final = 10_000

# -- cluster policy whose default both ends quote ---------------------------------------------
WORKER_SLOTS_DEFAULT: Final = 4
WORKER_SLOTS: Final = 4_096
WORKER_LOST_AFTER_MS: Final = 30_000
HEARTBEATS_PER_LEASE: Final = 6
DRAIN_TIMEOUT_MS_DEFAULT: Final = 30_000
"""How long the running tasks of a worker that is shut down may go on before they are stopped."""
DRAIN_TIMEOUT_MS: Final = 24 * 3600 * 1000
CRASH_LIMIT: Final = 3
"""Attempts of one job that may be lost with their workers before it is quarantined."""
SCALE_EVERY_MS: Final = 15_000
"""How often the queue is compared with what can serve it."""
SIBLING_IDLE_MS: Final = 45_000
"""A spawned worker that holds nothing for so long is told to leave."""
SPAWN_TIMEOUT_MS: Final = 30_000
"""A worker that was asked for and has not joined after so long is given up."""
SIBLINGS_PER_HOST: Final = 4
"""Workers that are spawned on one host because of the queue."""
SIBLINGS: Final = 64
"""Spawned workers of a cluster, those that a person asked for included."""
SLOTS_PER_CORE: Final = 4
"""Nothing is spawned that would give all workers of a host together more slots a core."""
SCALINGS_KEPT: Final = 50
"""So many of the last spawns and retirements are told with their causes; the journal has all."""
USAGE_ATTEMPTS: Final = 1_000
"""So many attempts a worker tells the use of at once, the largest first."""
TICKET_MS: Final = 10 * 60_000
"""How long a ticket for the dashboard is good."""
TICKETS: Final = 100
"""Tickets that are good at once; one more and the oldest is not any more."""
ATTEMPTS_LISTED: Final = 500
"""Tries at one job that are told at once."""
USAGE_HISTORY_MS: Final = 15 * 60_000
USAGE_HISTORY_BYTES: Final = 64 * 1024 * 1024
"""What the master remembers of it in memory, of all workers together."""
USAGE_REPLY_BYTES: Final = 4 * 1024 * 1024
"""What it tells of it at once."""
DEFAULT_PORT: Final = 9090
DEFAULT_WORKER_PORT: Final = 8080
