/**
 * `npm run build`: the console's page into web/dist, compressed ahead of time. Does nothing when it is up to date, so that tests
 * can ask for it. Two builds at once end in the same result: each builds aside and renames.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, globSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { brotliCompressSync, constants, gzipSync } from 'node:zlib';

const ROOT = dirname(import.meta.dirname);
const WEB = join(ROOT, 'web');
const DIST = join(WEB, 'dist');
const STAMP = '.built-from';
const COMPRESSED = /\.(html|js|css|svg)$/;

/** Everything the result depends on; types that are imported from src/ leave no trace in it, values do. */
function sourceDigest(): string {
  const digest = createHash('sha256');
  const files = globSync(['web/*.{html,ts,json}', 'web/{src,public}/**/*.*', 'src/model/*.ts', 'package-lock.json'], { cwd: ROOT }).sort();
  for (const file of files) digest.update(`${file}\n`).update(readFileSync(join(ROOT, file)));
  return digest.digest('hex');
}

/** Builds when the sources have changed; true when it did. */
export function buildConsole(): boolean {
  const wanted = sourceDigest();
  if (existsSync(join(DIST, STAMP)) && readFileSync(join(DIST, STAMP), 'utf8') === wanted) return false;
  const aside = mkdtempSync(join(WEB, '.dist-'));
  try {
    const done = spawnSync(process.execPath, [join(ROOT, 'node_modules/vite/bin/vite.js'), 'build', '--logLevel', 'warn', '--outDir', aside, '--emptyOutDir'],
      { cwd: WEB, stdio: ['ignore', 'inherit', 'inherit'] });
    if (done.status !== 0) throw new Error(`vite ended with ${done.status}`);
    for (const entry of readdirSync(aside, { recursive: true, withFileTypes: true })) {
      if (entry.isFile() && COMPRESSED.test(entry.name)) compress(join(entry.parentPath, entry.name));
    }
    writeFileSync(join(aside, STAMP), wanted);
    // The server may run as another user than the one who builds.
    chmodSync(aside, 0o755);
    rmSync(DIST, { recursive: true, force: true });
    renameSync(aside, DIST);
  } finally {
    rmSync(aside, { recursive: true, force: true });
  }
  return true;
}

function compress(path: string): void {
  const plain = readFileSync(path);
  writeFileSync(`${path}.gz`, gzipSync(plain, { level: 9 }));
  writeFileSync(`${path}.br`, brotliCompressSync(plain, { params: { [constants.BROTLI_PARAM_SIZE_HINT]: plain.length } }));
}

if (import.meta.main) console.log(buildConsole() ? `built ${DIST}` : `${DIST} is up to date`);
