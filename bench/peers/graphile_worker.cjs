// graphile-worker in batch mode: 500 jobs are fetched at once and completed in batches; a completed job's row is deleted.
'use strict';

const { Logger, makeWorkerUtils, run } = require('graphile-worker');
const { verb, concurrency, tally, store } = require('./tally.cjs');

const connectionString = process.env.DATABASE_URL;
const logger = new Logger(() => () => {});
const worker = {
  concurrentJobs: concurrency,
  maxPoolSize: 10,
  localQueue: { size: 500 },
  completeJobBatchDelay: 0,
  failJobBatchDelay: 0,
};

async function main() {
  if (verb === 'work') {
    const runner = await run({ connectionString, logger, taskList: { noop: async () => tally() }, noHandleSignals: true, preset: { worker } });
    await runner.promise;
    return;
  }
  const utils = await makeWorkerUtils({ connectionString, logger });
  await utils.migrate();
  await store((payloads) => utils.addJobs(payloads.map((payload) => ({ identifier: 'noop', payload }))));
  await utils.release();
}

main();
