-- Runs that repeat others name them; how often a job failed by itself; failed jobs are looked for.

ALTER TABLE history_run ADD COLUMN rerun_of TEXT NOT NULL DEFAULT '';
ALTER TABLE history_job ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;
CREATE INDEX history_job_failed ON history_job (run_seq, job_id) WHERE state = 'FAILED';
