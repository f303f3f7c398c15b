-- oracle: writes down every move of every job, in the transaction that moves it. Only tests install it.
CREATE TABLE oracle (
  n bigserial PRIMARY KEY, id uuid NOT NULL, before text, after text, epoch_before bigint, epoch_after bigint,
  locked_by uuid, txid bigint NOT NULL DEFAULT txid_current(), at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE FUNCTION oracle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF tg_op = 'INSERT' THEN
    INSERT INTO oracle (id, after, epoch_after) VALUES (new.id, new.status, new.run_epoch);
  ELSIF tg_op = 'UPDATE' THEN
    INSERT INTO oracle (id, before, after, epoch_before, epoch_after, locked_by)
    VALUES (new.id, old.status, new.status, old.run_epoch, new.run_epoch, new.locked_by);
  ELSE -- a row that leaves while it is processing goes to jobs_done
    INSERT INTO oracle (id, before, after, epoch_before, epoch_after, locked_by)
    VALUES (old.id, old.status, CASE old.status WHEN 'processing' THEN 'completed' ELSE '' END,
            old.run_epoch, old.run_epoch, old.locked_by);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER oracle AFTER INSERT OR UPDATE OR DELETE ON jobs FOR EACH ROW EXECUTE FUNCTION oracle();
