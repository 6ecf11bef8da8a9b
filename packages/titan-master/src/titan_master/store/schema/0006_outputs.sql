-- What jobs left for others; only of those that left anything.

CREATE TABLE history_output (
    run_seq INTEGER NOT NULL,
    job_id  TEXT    NOT NULL,
    outputs BLOB    NOT NULL,
    crc     INTEGER,
    PRIMARY KEY (run_seq, job_id)
) STRICT, WITHOUT ROWID;
