/**
 * Stands in for ssh: `node remote-shell-stand-in.ts HOST understudy disk serve --stdio PATH` runs that command line
 * here.
 */

import { hostClock } from '../../src/disk/host-clock.ts';
import { hostFiles } from '../../src/disk/host-files.ts';
import { runCli } from '../../src/cli/run-cli.ts';

const [, , , , ...words] = process.argv;
process.exitCode = await runCli(words, {
  stdin: process.stdin,
  stdout: process.stdout,
  stderr: process.stderr,
  env: process.env,
  isTTY: { stdin: false, stdout: false, stderr: false },
  cwd: process.cwd(),
  zone: 'UTC',
  clock: hostClock,
  files: hostFiles,
  version: '0.0.0',
  signal: new AbortController().signal,
  makeServer: () => Promise.reject(new Error('no server here')),
});
