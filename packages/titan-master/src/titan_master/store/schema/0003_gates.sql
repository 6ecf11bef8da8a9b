-- What became of gates: asked for with the job's row, which has the state and the reason.

CREATE TABLE history_gate (
    run_seq       INTEGER NOT NULL,
    job_id        TEXT    NOT NULL,
    opened_at_ms  INTEGER NOT NULL,
    expires_at_ms INTEGER NOT NULL,
    decided_at_ms INTEGER NOT NULL,
    decided_by    TEXT    NOT NULL,
    comment       TEXT    NOT NULL,
    PRIMARY KEY (run_seq, job_id)
) STRICT, WITHOUT ROWID;
-- Ends with run_seq, the rest of the key: the newest run that has a gate is the last entry.
CREATE INDEX history_gate_job ON history_gate (job_id);
