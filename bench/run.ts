/** `npm run bench [NAME…]`: runs the benches one after another; each prints its own table and checks its own result. */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';

/** Helpers of a bench, not benches. */
const PARTS = ['run.ts', 'nbd-serve.ts', 'two-sites.ts'];

const chosen = process.argv.slice(2);
const benches = readdirSync(import.meta.dirname).filter((name) => name.endsWith('.ts') && !PARTS.includes(name)).sort();
console.log(`# ${cpus().length} × ${cpus()[0]?.model ?? 'unknown processor'}, Node ${process.version}`);
let failed = false;
for (const name of benches) {
  if (chosen.length > 0 && !chosen.includes(name.replace(/\.ts$/, ''))) continue;
  console.log(`\n# ${name}`);
  failed = spawnSync(process.execPath, [join(import.meta.dirname, name)], { stdio: 'inherit' }).status !== 0 || failed;
}
process.exitCode = failed ? 1 : 0;
