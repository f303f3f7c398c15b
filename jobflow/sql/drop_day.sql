-- drop_day: drop a day whose completed jobs are older than their retention. Late finishers of that day and the history
-- of jobs that still live are kept in the default partitions
-- {day} as job_day counts · {seconds} retention
-- Returns: nothing
ALTER TABLE jobs_done DETACH PARTITION jobs_done_{day};
ALTER TABLE job_attempts DETACH PARTITION job_attempts_{day};
INSERT INTO jobs_done SELECT * FROM jobs_done_{day} WHERE finished_at >= now() - make_interval(secs => {seconds});
INSERT INTO job_attempts SELECT a.* FROM job_attempts_{day} a
WHERE EXISTS (SELECT FROM jobs j WHERE j.id = a.job_id) OR EXISTS (SELECT FROM jobs_done d WHERE d.id = a.job_id);
INSERT INTO counter_deltas (queue, before, after, bucket, n)
SELECT queue, {completed}, '', {day}, count(*) FROM jobs_done_{day}
WHERE finished_at < now() - make_interval(secs => {seconds}) GROUP BY queue;
DROP TABLE jobs_done_{day}, job_attempts_{day}
