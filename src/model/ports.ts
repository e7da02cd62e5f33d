/**
 * The outside world as interfaces, so that two whole hosts run in one deterministic simulation. Real ones are made in `main.ts`
 * and handed in; the simulated ones live in test/simulation. Nothing else in src/ reads a clock, draws a random number or
 * arms a timer (test/house enforces it).
 */

import type { Duplex } from 'node:stream';

export interface Clock {
  /** Milliseconds since 1970 UTC. May jump when an administrator sets the clock: for people and logs only. */
  now(): number;
  /** Milliseconds since some fixed instant; never jumps. For intervals, time-outs and rates. */
  monotonic(): number;
  /** Resolves after `ms`; rejects with the signal's reason when aborted. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export interface Random {
  /** A fresh version-4 UUID, lower case with dashes. */
  uuid(): string;
  bytes(count: number): Uint8Array;
}

export interface FileStat {
  kind: 'file' | 'folder' | 'block' | 'other';
  size: number;
  /** Bytes really allocated on the volume. */
  allocated: number;
  mtimeNs: bigint;
  ctimeNs: bigint;
  inode: bigint;
  device: bigint;
}

/** One open file. Positions and lengths are bytes. Several operations may be in flight at once. */
export interface OpenFile {
  readonly path: string;
  /** Reads up to `into.length` bytes; the result is shorter only at the end of the file. */
  read(into: Uint8Array, position: number): Promise<number>;
  /**
   * Writes all buffers one after another from `position`, or rejects. Resolves when later reads see the bytes; durable only
   * after the
   * next `datasync` resolves. After a rejection any part of the range may have been written.
   */
  write(buffers: readonly Uint8Array[], position: number): Promise<void>;
  /**
   * `write`, and then another to a second file, at less cost than both: where one fails, either may have been made or not. Rejects when
   * both are over.
   */
  writeTogether?(buffers: readonly Uint8Array[], position: number, second: { file: OpenFile; buffers: readonly Uint8Array[]; position: number }): Promise<void>;
  /**
   * `write` of one buffer, durable when it resolves to true, at less cost than `write` and `datasync`. False or absent: it may not have been made,
   * use those. After a rejection nothing may be assumed durable.
   */
  writeDurably?(from: Uint8Array, position: number): Promise<boolean>;
  /** Makes every write that resolved before this call durable. After a rejection nothing may be assumed durable: never retry. */
  datasync(): Promise<void>;
  truncate(size: number): Promise<void>;
  /** `read` on this thread, of all of `into`, when that needs no waiting; false when it would have to wait: then use `read`. */
  readNow?(into: Uint8Array, position: number): boolean;
  /** `write` on this thread; false, with nothing done, where it might wait for more than a device of this machine. See prompt-writes.ts. */
  writeNow?(from: Uint8Array, position: number): boolean;
  /**
   * Gives the range's space back to the volume; it reads as zeroes afterwards. Absent or rejected: the bytes stay as they
   * are.
   */
  punch?(position: number, length: number): Promise<void>;
  size(): Promise<number>;
  close(): Promise<void>;
}

/** Named files of this host. Paths are absolute. Rejections carry an errno in `code` (`ENOENT`, `ENOSPC`, `EIO`, …). */
export interface Files {
  /** `read` and `write` need an existing file, `create` fails with EEXIST when there is one. */
  open(path: string, mode: 'read' | 'write' | 'create'): Promise<OpenFile>;
  /** Replaces `to` atomically; durable after `syncFolder`. */
  rename(from: string, to: string): Promise<void>;
  /** Succeeds when the file is already gone. */
  remove(path: string): Promise<void>;
  /** Creates parents too; succeeds when it exists. */
  makeFolder(path: string): Promise<void>;
  /** Names in the folder, sorted; empty when the folder does not exist. */
  list(path: string): Promise<string[]>;
  /** Null when there is nothing at the path. */
  stat(path: string): Promise<FileStat | null>;
  /** Makes creations, renames and removals in this folder durable. */
  syncFolder(path: string): Promise<void>;
  /** Bytes that can still be written on the volume of this folder. */
  freeBytes(path: string): Promise<number>;
}

/** What costs processor time and is done off the main thread in a real host. All results are independent of timing. */
export interface Compute {
  /** zstd level 1; null when it would not shrink by at least 5 %. The result may lie in `into`, from its start on. */
  compress(data: Uint8Array, into?: Uint8Array): Promise<Uint8Array | null>;
  /** Rejects when the data is malformed or would exceed `maxBytes`. The result may lie in `into`, from its start on. */
  decompress(data: Uint8Array, maxBytes: number, into?: Uint8Array): Promise<Uint8Array>;
  /** BLAKE3, 32 bytes. */
  digest(data: Uint8Array): Uint8Array;
  /** BLAKE3 over a stream. */
  digester(): { update(data: Uint8Array): void; digest(): Uint8Array };
}

export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export interface ProgramResult {
  /** Null when it was killed. */
  exitCode: number | null;
  /** Standard output alone, and the end of all that it said; each has a bound. */
  stdout: string;
  output: string;
  /** Killed with its process group, because its time was over. */
  timedOut: boolean;
}

/** Starts other programs of this host. */
export interface Programs {
  /**
   * Resolves when it has ended, whatever its exit code. Its environment is `env` and nothing else; it gets no input. It leads a
   * process group, which is killed when `timeoutMs` is over or `signal` aborts. Rejects with an errno in `code` when it cannot be
   * started (`ENOENT`, `EACCES`, …), and with the signal's reason.
   */
  run(path: string, args: readonly string[], options: { env: Record<string, string>; timeoutMs: number; signal?: AbortSignal }): Promise<ProgramResult>;
}

/** Connects to Unix sockets of this host. Rejects with an errno in `code` (`ENOENT`, `ECONNREFUSED`, …). */
export interface LocalSockets {
  connect(path: string): Promise<Duplex>;
}
