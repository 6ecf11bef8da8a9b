-- The journal is the truth. What is called history_* is a projection of it, written in the same
-- transaction, for questions about runs that have left memory.

-- format: of the journal; term: of the last master; history: the record up to which it is projected.
CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One record per event. `chain` covers the record before and everything in this one.
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY,
    term INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    chain BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT;

-- `seq` is the journal's record of the run's acceptance, which holds its spec as it arrived.
CREATE TABLE history_run (
    seq INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL,
    alias TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    jobs INTEGER NOT NULL,
    accepted_at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER,
    counts TEXT
) STRICT;
CREATE UNIQUE INDEX history_run_id ON history_run (run_id);
CREATE INDEX history_run_alias ON history_run (alias);
CREATE INDEX history_run_ended ON history_run (seq) WHERE ended_at_ms IS NOT NULL;

-- Which jobs became ready when: one row an event, for one event may name 100,000 of them.
CREATE TABLE history_ready (
    run_seq INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    job_ids BLOB NOT NULL,
    PRIMARY KEY (run_seq, seq)
) STRICT, WITHOUT ROWID;

-- Written when a job ends.
CREATE TABLE history_job (
    run_seq INTEGER NOT NULL,
    job_id TEXT NOT NULL,
    state TEXT NOT NULL,
    reason TEXT NOT NULL,
    exit_code INTEGER NOT NULL,
    signal INTEGER NOT NULL,
    message TEXT NOT NULL,
    lost INTEGER NOT NULL,
    ended_at_ms INTEGER NOT NULL,
    PRIMARY KEY (run_seq, job_id)
) STRICT, WITHOUT ROWID;
-- Ends with run_seq, the rest of the key: the newest run that has a job is the last entry.
CREATE INDEX history_job_id ON history_job (job_id);

-- Written when an attempt ends, and for a service when it is up: it outlives its run.
CREATE TABLE history_attempt (
    run_seq INTEGER NOT NULL,
    job_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    worker TEXT NOT NULL,
    worker_id TEXT NOT NULL,
    ended INTEGER NOT NULL,
    reason TEXT NOT NULL,
    exit_code INTEGER NOT NULL,
    signal INTEGER NOT NULL,
    message TEXT NOT NULL,
    placed_at_ms INTEGER NOT NULL,
    started_at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER NOT NULL,
    stdout_bytes INTEGER NOT NULL,
    stderr_bytes INTEGER NOT NULL,
    port INTEGER NOT NULL,
    PRIMARY KEY (run_seq, job_id, number)
) STRICT, WITHOUT ROWID;
