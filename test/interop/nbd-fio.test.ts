import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hostClock } from '../../src/disk/host-clock.ts';
import { missing, nbdRig, run, start, type NbdRig } from './nbd-rig.suite.ts';

const MIB = 2 ** 20;

/** Random writes, each block with its own checksum, read back and verified. */
function verifyArgs(rig: NbdRig, job: { name: string; offsetMib: number; sizeMib: number }): string[] {
  return [
    `--name=${job.name}`, '--thread', '--ioengine=nbd', `--uri=${rig.uri}`, '--rw=randwrite', '--bsrange=512-128k',
    '--blockalign=512', '--iodepth=16', `--offset=${job.offsetMib}m`, `--size=${job.sizeMib}m`, '--verify=crc32c',
    '--do_verify=1', '--verify_fatal=1', '--output-format=json', '--randrepeat=0',
  ];
}

/** Fails unless the job wrote, read back all it wrote, and found no error. */
function checkFio(stdout: string): void {
  const { jobs } = JSON.parse(stdout.slice(stdout.indexOf('{'))) as { jobs: { error: number; read: Ios; write: Ios }[] };
  for (const job of jobs) {
    assert.equal(job.error, 0);
    assert.ok(job.write.total_ios > 0, 'it wrote');
    assert.equal(job.read.io_bytes, job.write.io_bytes, 'all that was written was verified');
  }
}
interface Ios {
  total_ios: number;
  io_bytes: number;
}

for (const prompt of [true, false]) {
  const how = prompt ? 'prompt' : 'by the thread pool';
  test(`fio verifies random writes of any size, ${how}`, { skip: missing('fio') }, async () => {
    await using rig = await nbdRig(64 * MIB, { prompt });
    checkFio(await run('fio', ...verifyArgs(rig, { name: 'one', offsetMib: 0, sizeMib: 64 })));
    assert.deepEqual(rig.complaints, []);
    // The memory of a connection that has just ended is back.
    while (rig.server.connectionCount > 0) await hostClock.sleep(1);
    assert.equal(rig.server.memoryBytes, 0);
  });
}

test('two clients each verify their half, while a third is killed again and again', { skip: missing('fio') }, async () => {
  await using rig = await nbdRig(96 * MIB, { prompt: true });
  const good = [0, 32].map((offsetMib) => run('fio', ...verifyArgs(rig, { name: 'good', offsetMib, sizeMib: 32 })));
  let isOver = false;
  const finished = Promise.all(good).finally(() => (isOver = true));
  let killed = 0;
  while (!isOver) {
    const before = rig.server.connectionCount;
    const job = verifyArgs(rig, { name: 'victim', offsetMib: 64, sizeMib: 32 });
    const victim = start('fio', [...job, '--loops=1000', '--do_verify=0']);
    while (!isOver && rig.server.connectionCount <= before && victim.process.exitCode === null) await hostClock.sleep(1);
    await hostClock.sleep(20);
    victim.process.kill('SIGKILL');
    await victim.ended;
    killed += 1;
  }
  for (const stdout of await finished) checkFio(stdout);
  assert.ok(killed > 0);
  while (rig.server.connectionCount > 0) await hostClock.sleep(1);
  assert.equal(rig.server.memoryBytes, 0);
});
