/**
 * `npm run bench [NAME…] [-- --save]`: runs the benches one after another; each prints its own tables and checks its own result. With --save
 * the tables are written to bench/results/DATE.md and .json, with the machine they were measured on.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { asMarkdown, type Table } from './record.ts';

/** Parts of benches, not benches. */
const PARTS = ['run.ts', 'nbd-serve.ts', 'two-sites.ts', 'images.ts', 'record.ts', 'repairs.ts', 'processor-time.ts', 'bare-side.ts', 'fio.ts'];

const save = process.argv.includes('--save');
const chosen = process.argv.slice(2).filter((word) => !word.startsWith('--'));
const benches = readdirSync(import.meta.dirname).filter((name) => name.endsWith('.ts') && !PARTS.includes(name)).sort();
const machine = `${cpus().length} × ${cpus()[0]?.model ?? 'unknown processor'}, ` +
  `${Math.round(totalmem() / 2 ** 30)} GiB, Linux ${release()}, Node ${process.version}`;
console.log(`# ${machine}`);
const folder = mkdtempSync(join(tmpdir(), 'understudy-bench-record-'));
const kept = join(folder, 'tables');
let failed = false;
for (const name of benches) {
  if (chosen.length > 0 && !chosen.includes(name.replace(/\.ts$/, ''))) continue;
  console.log(`\n# ${name}`);
  const { status } = spawnSync(process.execPath, [join(import.meta.dirname, name)],
    { stdio: 'inherit', env: { ...process.env, UNDERSTUDY_BENCH_RECORD: kept } });
  failed = status !== 0 || failed;
}
const tables = existsSync(kept) ? readFileSync(kept, 'utf8').trim().split('\n').map((line) => JSON.parse(line) as Table) : [];
rmSync(folder, { recursive: true });
if (save && tables.length > 0) {
  const date = new Date().toISOString().slice(0, 10);
  const path = join(import.meta.dirname, 'results', date);
  writeFileSync(`${path}.json`, `${JSON.stringify({ date, machine, tables }, null, 2)}\n`);
  writeFileSync(`${path}.md`, `# Results of ${date}\n\n${machine}.\n\n${tables.map(asMarkdown).join('\n')}`);
  console.log(`\nkept: ${path}.md and .json`);
}
process.exitCode = failed ? 1 : 0;
