-- Of a run that a schedule began: which one, and for which slot (msgpack); empty for all others.

ALTER TABLE history_run ADD COLUMN fired BLOB NOT NULL DEFAULT x'';
UPDATE history_run SET crc = NULL;
