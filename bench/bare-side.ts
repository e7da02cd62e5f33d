/**
 * One side of a resynchronization with everything left out that a design may leave out: no network, no messages, no threads, no records. What
 * stays is what equality of two files at two places costs at least, in the same calls that the product makes: read what holds data, tag
 * it, read what differs again, locate its pages, and on the target write them aside, read them back, tag them, and merge. A part of
 * resync.ts: two of these, side by side, are the limit that it measures against.
 *
 * Started with an IPC channel and `role path diff`; a message starts it: the runs of data, and the offsets that differ.
 */
import { closeSync, fdatasyncSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs';
import { TAG_BYTES, drawKey, leafTagger } from '../src/resync/compare/leaf-tags.ts';
import type { Runs } from './images.ts';

const MIB = 2 ** 20;
const LEAF = 65536;
const PAGE = 4096;
/** Stays in the processor's cache between reading and hashing. */
const STRETCH = 262144;

export interface BareWork {
  runs: Runs;
  /** Of the first bytes that differ, and how many there. */
  offsets: number[];
  bytes: number;
  size: number;
}

const [role, path, aside] = process.argv.slice(2) as ['source' | 'target', string, string];
const buffer = Buffer.allocUnsafeSlow(STRETCH);
const tagInto = leafTagger(drawKey());
const last = Buffer.alloc(TAG_BYTES);
const tag = (data: Uint8Array): void => tagInto(data, last, 0);

function scan(file: number, runs: Runs): void {
  for (const [first, count] of runs) {
    for (let at = first * MIB; at < (first + count) * MIB; at += STRETCH) {
      readSync(file, buffer, 0, STRETCH, at);
      for (let leaf = 0; leaf < STRETCH; leaf += LEAF) tag(buffer.subarray(leaf, leaf + LEAF));
    }
  }
}

const leafOf = (offset: number): number => Math.floor(offset / LEAF) * LEAF;

function locate(file: number, leaf: number): void {
  readSync(file, buffer, 0, LEAF, leaf);
  for (let page = 0; page < LEAF; page += PAGE) tag(buffer.subarray(page, page + PAGE));
}

function mend(file: number, diff: number, offset: number, bytes: number): void {
  locate(file, leafOf(offset));
  writeSync(diff, buffer, offset % LEAF, bytes, offset);
  readSync(file, buffer, 0, LEAF, leafOf(offset));
  readSync(diff, buffer, offset % LEAF, bytes, offset);
  tag(buffer.subarray(0, LEAF));
}

process.once('message', ({ runs, offsets, bytes, size }: BareWork) => {
  const file = openSync(path, role === 'source' ? 'r' : 'r+');
  scan(file, runs);
  if (role === 'source') {
    for (const offset of offsets) {
      locate(file, leafOf(offset));
      tag(buffer.subarray(0, LEAF));
    }
  } else if (offsets.length > 0) {
    const diff = openSync(aside, 'w+');
    ftruncateSync(diff, size);
    for (const offset of offsets) mend(file, diff, offset, bytes);
    fdatasyncSync(diff);
    for (const offset of offsets) {
      readSync(diff, buffer, 0, bytes, offset);
      writeSync(file, buffer, 0, bytes, offset);
    }
    fdatasyncSync(file);
    closeSync(diff);
  }
  closeSync(file);
  process.send!('done');
});
process.send!('ready');
