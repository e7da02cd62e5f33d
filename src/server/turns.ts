/**
 * Whose turn it is on a host whose processors are all busy (docs/decisions/0017-short-turns.md, 0022-behind-an-answer.md). Shares of the processor stay
 * what their niceness says; this says in how large pieces they come.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { libc, LONGEST_SLICE_NS, type Libc } from '../disk/libc.ts';

/**
 * A guest's write goes through two or three threads, each of which does microseconds of work. Each of them may wait until whoever runs has had
 * his turn, 3 to 4 ms by default; one that asks for a short turn of its own does not.
 */
const SHORT_NS = 300_000;
/** V8's threads that compile and collect beside the program: they make way also for the guest's own threads, which ask for no turn. Their name since Node 24. */
const BESIDE = 'V8Worker';

/** For the process of a server, once, before it makes threads of its own. */
export function takeTurns(native: Libc = libc(), tasks = '/proc/self/task'): void {
  if (!native.native) return;
  for (const thread of readdirSync(tasks)) {
    if (nameOf(`${tasks}/${thread}/comm`) === BESIDE) native.setSlice(LONGEST_SLICE_NS, Number(thread));
  }
  native.setSlice(SHORT_NS);
}

/** Null when the thread has just ended. */
function nameOf(path: string): string | null {
  try {
    return readFileSync(path, 'utf8').trim();
  } catch {
    return null;
  }
}
