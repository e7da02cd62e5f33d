/** `--watch`: the same question again and again, redrawn on a terminal, one value after another elsewhere. */

import type { Option } from 'commander';
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
    option('--interval <seconds>', `seconds between two looks (default: ${INTERVAL_SECONDS_DEFAULT})`).argParser(positive),
  ];
}

export async function watch<Value>(
  { output, signal, surroundings }: CommandContext,
  options: WatchOptions,
  look: () => Promise<Value>,
  text: (value: Value) => string,
): Promise<void> {
  if (options.watch !== true) return output.print(await look(), text);
  const redraw = surroundings.isTTY.stdout && !output.json;
  for (;;) {
    const value = await look();
    output.printNext(value, (shown) => `${redraw ? CLEAR_SCREEN : ''}${text(shown)}`);
    await surroundings.clock.sleep((options.interval ?? INTERVAL_SECONDS_DEFAULT) * 1000, signal);
  }
}
