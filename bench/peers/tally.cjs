// What the worker of an adapter in JavaScript counts, and its settings; tally.py is the same for those in Python.
'use strict';

const [verb, jobs] = [process.argv[2], Number(process.argv[3])];
const BULK = 1000; // jobs in one call that stores them
const say = (figures) => process.stdout.write(JSON.stringify(figures) + '\n');
const cpu = () => { const { user, system } = process.cpuUsage(); return (user + system) / 1e6; };

let count = 0, began = 0, used = 0;

// Called once by each handler; says how it went when all have been.
function tally() {
  count += 1;
  if (count === 1) [began, used] = [performance.now(), cpu()];
  if (count === jobs) {
    const seconds = (performance.now() - began) / 1000;
    say({ rate: jobs / seconds, app_cpu: ((cpu() - used) / jobs) * 1000 });
  }
}

// Stores all jobs; `bulk` stores some payloads by one call.
async function store(bulk) {
  const start = performance.now();
  for (let first = 0; first < jobs; first += BULK) {
    const numbers = Array.from({ length: Math.min(BULK, jobs - first) }, (_, n) => first + n);
    await bulk(numbers.map((number) => ({ number, to: 'user@example.com', subject: 'Hello' })));
  }
  say({ rate: jobs / ((performance.now() - start) / 1000) });
}

module.exports = { verb, concurrency: Number(process.env.BENCH_CONCURRENCY), tally, store };
