/**
 * Programs of users, as they really run: with a time limit, a bound on what is kept of what they say, and nothing left over when they
 * are killed.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { Clock, ProgramResult, Programs } from '../../model/ports.ts';

/** Kept of standard output, and of the end of all output. */
export const OUTPUT_BYTES_MAX = 512 * 1024;
export const TAIL_CHARS_MAX = 4096;
/** Between asking a process group to end and killing it. */
const GRACE_MS = 1000;
/** After its end, what it has said last may still be on the way; a program that it left behind may hold the pipes open for ever. */
const DRAIN_MS = 200;

/** `always`: goes into every environment. */
export function hostPrograms(clock: Clock, always: Record<string, string> = {}): Programs {
  return {
    async run(path, args, { env, timeoutMs, signal }) {
      signal?.throwIfAborted();
      const child = spawn(path, args, { env: { ...always, ...env }, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
      const said = listen(child);
      const exited = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
      const closed = once(child, 'close').then(() => undefined, () => undefined);
      const timer = new AbortController();
      const limit = AbortSignal.any([timer.signal, ...(signal === undefined ? [] : [signal])]);
      const late = clock.sleep(timeoutMs, limit).then(() => true, () => false);
      try {
        const first = await Promise.race([exited.then(() => 'ended' as const), late.then((over) => (over ? 'late' as const : 'stopped' as const))]);
        if (first !== 'ended') await killGroup(clock, child, exited);
        if (first === 'stopped') signal?.throwIfAborted();
        const [exitCode] = await exited;
        await Promise.race([closed, clock.sleep(DRAIN_MS, timer.signal).catch(() => undefined)]);
        return { exitCode: first === 'late' ? null : exitCode, ...said.all(), timedOut: first === 'late' };
      } finally {
        timer.abort();
        child.stdout.destroy();
        child.stderr.destroy();
      }
    },
  };
}

function listen(child: ChildProcess): { all(): Pick<ProgramResult, 'stdout' | 'output'> } {
  let stdout = '';
  let output = '';
  const tail = (text: string) => {
    output = (output + text).slice(-TAIL_CHARS_MAX);
  };
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    if (stdout.length < OUTPUT_BYTES_MAX) stdout += text.slice(0, OUTPUT_BYTES_MAX - stdout.length);
    tail(text);
  }).on('error', () => undefined);
  child.stderr!.setEncoding('utf8').on('data', tail).on('error', () => undefined);
  return { all: () => ({ stdout, output: output.trim() }) };
}

async function killGroup(clock: Clock, child: ChildProcess, exited: Promise<unknown>): Promise<void> {
  signalGroup(child, 'SIGTERM');
  const patience = new AbortController();
  await Promise.race([exited, clock.sleep(GRACE_MS, patience.signal).catch(() => undefined)]);
  patience.abort();
  // The leader may have gone and left others of its group behind.
  signalGroup(child, 'SIGKILL');
  await exited;
}

function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // No such process group any more.
  }
}
