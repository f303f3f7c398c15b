-- create_day: give a day its partitions; rows that came before them are moved out of the default ones
-- {day} as job_day counts · {low} and {high} its first id and that of the next day
-- Returns: nothing
-- Lists read the newest rows from an index alone once a vacuum has seen their pages, so it comes after 2 % of new rows, not 20 %.
LOCK TABLE jobs_done_default, job_attempts_default IN ACCESS EXCLUSIVE MODE;
CREATE TABLE jobs_done_{day} (LIKE jobs_done INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
  WITH (autovacuum_vacuum_insert_scale_factor = 0.02, autovacuum_vacuum_insert_threshold = 20000);
CREATE TABLE job_attempts_{day} (LIKE job_attempts INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
WITH moved AS (DELETE FROM jobs_done_default WHERE id >= '{low}' AND id < '{high}' RETURNING *)
INSERT INTO jobs_done_{day} SELECT * FROM moved;
WITH moved AS (DELETE FROM job_attempts_default WHERE job_id >= '{low}' AND job_id < '{high}' RETURNING *)
INSERT INTO job_attempts_{day} SELECT * FROM moved;
ALTER TABLE jobs_done ATTACH PARTITION jobs_done_{day} FOR VALUES FROM ('{low}') TO ('{high}');
ALTER TABLE job_attempts ATTACH PARTITION job_attempts_{day} FOR VALUES FROM ('{low}') TO ('{high}')
