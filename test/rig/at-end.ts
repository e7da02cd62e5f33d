/**
 * What a test must undo. node:test runs `t.after` hooks in the order of their registration and stops at the first that fails, so that
 * a folder would go before the servers that write into it, and one failure would leave the rest running. Here what was
 * set up last goes first, everything is undone, and the first failure is told.
 */
import type { ChildProcess } from 'node:child_process';
import { after } from 'node:test';

type Action = () => unknown;

/** A test, a suite, or whatever else can say that it is over. */
export interface Ending {
  after(action: Action): void;
}

const actionsOf = new WeakMap<Ending, Action[]>();

/** Runs the action when the test is over, after all that were asked for later; the actions of a test all run, whatever fails. */
export function atEnd(t: Ending, action: Action): void {
  const known = actionsOf.get(t);
  if (known !== undefined) {
    known.push(action);
    return;
  }
  const actions = [action];
  actionsOf.set(t, actions);
  t.after(() => undo(actions));
}

/** The enclosing suite, for what its tests share. */
export function suiteEnd(): Ending {
  const actions: Action[] = [];
  after(() => undo(actions));
  return { after: (action) => void actions.push(action) };
}

async function undo(actions: Action[]): Promise<void> {
  const failures: unknown[] = [];
  for (let action = actions.pop(); action !== undefined; action = actions.pop()) {
    try {
      await action();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}

const running = new Set<ChildProcess>();

/**
 * A program that a test started and must end: should the test forget it, it is killed with the file's process, which fails by
 * naming it.
 */
export function endsWithFile<T extends ChildProcess>(child: T): T {
  if (running.size === 0) process.once('exit', killTheRest);
  running.add(child);
  child.once('exit', () => {
    running.delete(child);
    if (running.size === 0) process.off('exit', killTheRest);
  });
  return child;
}

function killTheRest(): void {
  for (const child of running) {
    child.kill('SIGKILL');
    console.error(`left running by this file's tests: ${child.spawnargs.join(' ')}`);
  }
  process.exitCode = 1;
}
