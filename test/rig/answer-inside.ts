import { hostClock } from '../../src/disk/host-clock.ts';
import { run as runInside } from '../cli/fake-host.ts';
import type { TestServer } from './server.ts';

/**
 * The command line of this server runs inside of this process from now on: the same words, answers and exit codes without a process for each,
 * which costs half a second of processor time. What commands are as programs is seen where they are typed (test/system/bad-use.test.ts,
 * metrics.test.ts, test/guest/replication.guest.test.ts).
 */
export function answerInside(server: TestServer): void {
  server.cli = async (...words) => {
    const { code, stdout, stderr } = await runInside(words, {
      dataFolder: server.data, clock: hostClock, cwd: process.cwd(), zone: Intl.DateTimeFormat().resolvedOptions().timeZone });
    return { status: code, signal: null, stdout, stderr };
  };
}
