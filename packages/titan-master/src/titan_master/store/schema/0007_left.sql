-- Where the files are listed that jobs left for others; only of those that left any.

CREATE TABLE history_left (
    run_seq INTEGER NOT NULL,
    job_id  TEXT    NOT NULL,
    place   INTEGER NOT NULL,
    files   BLOB    NOT NULL,
    crc     INTEGER,
    PRIMARY KEY (run_seq, job_id)
) STRICT, WITHOUT ROWID;
