/** Where Hyper-V's cmdlets come in: `understudy Get-VMReplication …` and the lines of `understudy shell`. */

import type { CliSurroundings } from './context.ts';

export function isCmdlet(argv: readonly string[]): boolean {
  return /^[a-z]+[-–—−]VM\w+/i.test(argv.find((word) => !word.startsWith('-')) ?? '');
}

export function runCmdletWords(_argv: readonly string[], _surroundings: CliSurroundings): Promise<number> {
  throw new Error('not wired yet');
}
