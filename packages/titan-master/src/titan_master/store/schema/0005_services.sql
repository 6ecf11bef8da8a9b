-- Services that were up and have ended; how, stands in the row of their attempt.

CREATE TABLE history_service (
    run_seq       INTEGER NOT NULL,
    job_id        TEXT    NOT NULL,
    number        INTEGER NOT NULL,
    name          TEXT    NOT NULL,
    state         TEXT    NOT NULL,
    healthy_at_ms INTEGER NOT NULL,
    ended_at_ms   INTEGER NOT NULL,
    seq           INTEGER NOT NULL,
    crc           INTEGER,
    PRIMARY KEY (run_seq, job_id)
) STRICT, WITHOUT ROWID;
-- By the record of their end: the newest come first.
CREATE INDEX history_service_ended ON history_service (seq);
