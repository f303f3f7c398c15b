// BullMQ: jobs in Redis alone, kept after they are completed, as by its defaults.
'use strict';

const { Queue, Worker } = require('bullmq');
const { verb, concurrency, tally, store } = require('./tally.cjs');

const url = new URL(process.env.REDIS_URL);
const connection = { host: url.hostname, port: Number(url.port), password: url.password, maxRetriesPerRequest: null };

async function main() {
  if (verb === 'work') {
    new Worker('bench', async () => tally(), { connection, concurrency });
    return;
  }
  const queue = new Queue('bench', { connection });
  await queue.waitUntilReady();
  await store((payloads) => queue.addBulk(payloads.map((data) => ({ name: 'noop', data }))));
  await queue.close();
}

main();
