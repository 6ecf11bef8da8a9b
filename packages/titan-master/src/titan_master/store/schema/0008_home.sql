-- In which workspace the files lie that jobs left for others and nobody stored; only of those that left any.

CREATE TABLE history_home (
    run_seq INTEGER NOT NULL,
    job_id  TEXT    NOT NULL,
    home    TEXT    NOT NULL,
    crc     INTEGER,
    PRIMARY KEY (run_seq, job_id)
) STRICT, WITHOUT ROWID;
