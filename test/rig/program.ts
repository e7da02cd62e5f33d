/** Runs other programs for tests: with a time limit, everything they said, and nothing left over at the end. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { atEnd, type Ending } from './at-end.ts';

export interface Done {
  status: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export interface RunOptions {
  env?: Record<string, string>;
  timeoutMs?: number;
  input?: string;
  cwd?: string;
}

/** Runs a program to its end. Rejects only when it cannot be started or outlives its time. */
export async function run(command: string, args: string[], options: RunOptions = {}): Promise<Done> {
  const child = spawn(command, args, { env: { ...process.env, ...options.env }, cwd: options.cwd, stdio: ['pipe', 'pipe', 'pipe'] });
  const said = { stdout: '', stderr: '' };
  child.stdout.on('data', (data: Buffer) => (said.stdout += data.toString()));
  child.stderr.on('data', (data: Buffer) => (said.stderr += data.toString()));
  child.stdin.on('error', () => undefined);
  child.stdin.end(options.input ?? '');
  const limit = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? 120_000);
  const [status, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  clearTimeout(limit);
  return { status, signal, ...said };
}

/** As `run`, but a failure is an error that says what the program said. */
export async function mustRun(command: string, args: string[], options: RunOptions = {}): Promise<string> {
  const done = await run(command, args, options);
  if (done.status === 0) return done.stdout;
  throw new Error(`${command} ${args.join(' ')}: exit ${done.status ?? done.signal}\n${done.stdout}${done.stderr}`);
}

/** Kills for good and waits until it is gone. */
export async function kill9(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = once(child, 'exit');
  child.kill('SIGKILL');
  await gone;
}

/** Until a program has made what says that it listens: its socket, or the file with its number. */
export async function untilThere(path: string): Promise<void> {
  while (!existsSync(path)) await new Promise((resolve) => setTimeout(resolve, 20));
}

/** A folder that goes when the test ends. */
export async function temporaryFolder(t: Ending, name = 'understudy-test-'): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), name));
  atEnd(t, () => rm(folder, { recursive: true, force: true }));
  return folder;
}
