-- Lets the journal be bounded: what its records came to is kept beside it, so that old ones may go.

-- The fold of the journal up to the record that the row 'head' names: one row per aggregate, written
-- anew only when it has changed. `seal` covers the row; 'head' covers all rows together. The row
-- 'base' names the last record that is gone.
CREATE TABLE checkpoint (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    body BLOB NOT NULL,
    seal BLOB NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;

-- From which record on the journal has which format: a row at its beginning and at each upgrade.
CREATE TABLE journal_format (
    seq INTEGER PRIMARY KEY,
    format INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT;

-- Records that accepted a run, from the moment when the journal no longer has them.
CREATE TABLE history_spec (
    run_seq INTEGER PRIMARY KEY,
    crc INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;

-- Over all other columns of the row; NULL in rows of an older version and of runs that are live.
ALTER TABLE history_run ADD COLUMN crc INTEGER;
ALTER TABLE history_ready ADD COLUMN crc INTEGER;
ALTER TABLE history_job ADD COLUMN crc INTEGER;
ALTER TABLE history_attempt ADD COLUMN crc INTEGER;
ALTER TABLE history_gate ADD COLUMN crc INTEGER;
