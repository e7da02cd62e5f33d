/** The built page (web/dist) in memory: small, and so no request can name a path on the disk. */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';

export interface PageFile {
  type: string;
  etag: string;
  /** Names under /assets carry a digest of what they hold, so that they never change. */
  immutable: boolean;
  plain: Buffer;
  brotli: Buffer | null;
  gzip: Buffer | null;
}

const TYPES: Record<string, string> = {
  '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml', '.png': 'image/png', '.webmanifest': 'application/manifest+json',
};

/** By URL path. Empty when the page has not been built. */
export function readPage(folder: string): Map<string, PageFile> {
  const files = new Map<string, PageFile>();
  for (const path of filesIn(folder)) {
    const type = TYPES[extname(path)];
    if (type === undefined) continue;
    const plain = readFileSync(join(folder, path));
    const etag = `"${createHash('sha256').update(plain).digest('hex').slice(0, 24)}"`;
    const file = { type, etag, immutable: path.startsWith('assets/'), plain, brotli: read(join(folder, `${path}.br`)), gzip: read(join(folder, `${path}.gz`)) };
    files.set(path === 'index.html' ? '/' : `/${path}`, file);
  }
  return files;
}

export function encoded(file: PageFile, accept: string): { body: Buffer; encoding: 'br' | 'gzip' | null } {
  if (file.brotli !== null && /\bbr\b/.test(accept)) return { body: file.brotli, encoding: 'br' };
  if (file.gzip !== null && /\bgzip\b/.test(accept)) return { body: file.gzip, encoding: 'gzip' };
  return { body: file.plain, encoding: null };
}

function filesIn(folder: string): string[] {
  try {
    return readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1));
  } catch {
    return [];
  }
}

function read(path: string): Buffer | null {
  try {
    return readFileSync(path);
  } catch {
    return null;
  }
}
