import { spawnSync } from 'node:child_process';

/** One of the tools that read the whole project: its exit code, and all it said. */
export function check(command: string, args: string[]): { status: number | null; output: string } {
  const done = spawnSync(`node_modules/.bin/${command}`, args, { encoding: 'utf8' });
  return { status: done.status, output: `${done.stdout}${done.stderr}` };
}
