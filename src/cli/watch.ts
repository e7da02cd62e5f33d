/** `--watch`: the same question again and again, redrawn on a terminal, one value after another elsewhere. */

import type { Option } from 'commander';
import { EXIT_INTERRUPTED, errnoOf } from '../model/errors.ts';
import { option, positive } from './command.ts';
import type { CommandContext } from './context.ts';

const INTERVAL_SECONDS_DEFAULT = 2;
const CLEAR_SCREEN = '\u001b[H\u001b[2J';

export interface WatchOptions {
  watch?: true;
  interval?: number;
}

export function watchOptions(): Option[] {
  return [
    option('--watch', 'show it again and again, until interrupted; with --json one value a line'),
    option('--interval <seconds>', `seconds between two looks (default: ${INTERVAL_SECONDS_DEFAULT})`).argParser(
      positive,
    ),
  ];
}

/** Returns the exit code. `over`: there is nothing more to see. */
export async function watch<Value>(
  context: CommandContext,
  options: WatchOptions,
  look: () => Promise<Value>,
  text: (value: Value) => string,
  over: (value: Value) => boolean = () => false,
): Promise<number> {
  const { output, signal, surroundings } = context;
  if (options.watch !== true) {
    output.print(await look(), text);
    return 0;
  }
  const redraw = surroundings.isTTY.stdout && !output.json;
  return untilInterrupted(context, async () => {
    let before = '';
    for (;;) {
      const value = await look();
      const now = text(value);
      // In a file or a pipe what has not changed is said once.
      if (redraw || output.json || now !== before) output.printNext(value, () => `${redraw ? CLEAR_SCREEN : ''}${now}`);
      if (over(value)) return;
      before = now;
      await surroundings.clock.sleep((options.interval ?? INTERVAL_SECONDS_DEFAULT) * 1000, signal);
    }
  });
}

/** For what has no end of its own: Ctrl-C is how it is ended, and nothing needs to be said about it. */
export async function untilInterrupted({ signal }: CommandContext, work: () => Promise<unknown>): Promise<number> {
  try {
    await work();
    return 0;
  } catch (error) {
    if (signal.aborted && errnoOf(signal.reason) !== 'EPIPE') return EXIT_INTERRUPTED;
    throw error;
  }
}
