import assert from 'node:assert/strict';
import { spawn, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { test } from 'node:test';
import { atEnd, type Ending } from '../rig/at-end.ts';
import { kill9, mustRun, temporaryFolder, untilThere } from '../rig/program.ts';
import { assertRequired, guestWrites, refusesToOverwrite, replicatingPair } from './resync-rig.ts';

const SIZE = 16 << 20;

async function nbdOf(t: Ending, image: string, socket: string): Promise<ChildProcess> {
  const child = spawn('qemu-nbd', ['--persistent', '--format=qcow2', '--shared=8', `--socket=${socket}`, image], { stdio: 'inherit' });
  atEnd(t, () => kill9(child));
  await untilThere(socket);
  return child;
}

async function stopped(child: ChildProcess): Promise<void> {
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  await gone;
}

/**
 * Trigger 5 of a disk behind qemu-nbd. NBD tells nothing of who wrote to an image, or which of its snapshots it is, so nothing is
 * believed after a stop: the reason named is the one that can be known (trigger 1), and the repair is the one that a revert needs.
 */
test('5: a qcow2 snapshot applied behind qemu-nbd is compared whole, and the replica follows it back', async (t) => {
  const folder = await temporaryFolder(t);
  const [image, socket] = [join(folder, 'disk.qcow2'), join(folder, 'disk.sock')];
  await mustRun('qemu-img', ['create', '-q', '-f', 'qcow2', image, String(SIZE)]);
  let server = await nbdOf(t, image, socket);
  const pair = await replicatingPair(t, { disks: [`nbd+unix:///?socket=${socket}`] });
  await guestWrites(pair, 0, [{ at: '0', length: '1M', byte: 1 }]);
  await pair.primary.json('sync-now', pair.vm);
  await pair.primary.json('vm', 'stop', pair.vm);
  await stopped(server);
  await mustRun('qemu-img', ['snapshot', '-c', 'before', image]);
  server = await nbdOf(t, image, socket);
  await pair.primary.json('vm', 'attach', pair.vm);
  // The snapshot alone changed nothing, but nobody can know that.
  await assertRequired(pair, { trigger: 1, rung: 'full-compare', reason: /nobody can prove that disk nbd\+unix/ });
  await pair.primary.json('resume', pair.vm, '--overwrite-replica');
  await pair.untilState('Replicating');
  await guestWrites(pair, 0, [{ at: '0', length: '2M', byte: 2 }, { at: '8M', length: '64k', byte: 3 }]);
  await pair.primary.json('sync-now', pair.vm);
  await pair.primary.json('vm', 'stop', pair.vm);
  await stopped(server);
  await mustRun('qemu-img', ['snapshot', '-a', 'before', image]);
  server = await nbdOf(t, image, socket);
  await pair.primary.json('set', pair.vm, '--auto-resync', 'on');
  await pair.primary.json('vm', 'attach', pair.vm);
  // R21: at any hour, and still nothing starts: the replica knows what the snapshot does not.
  await assertRequired(pair, { trigger: 1, rung: 'full-compare', reason: /does not tell whether somebody wrote to it, or which of its states/ });
  await refusesToOverwrite(pair);
  await pair.primary.json('resume', pair.vm, '--overwrite-replica');
  await pair.untilState('Replicating');
  await pair.primary.json('vm', 'stop', pair.vm);
  await stopped(server);
  const replica = (await pair.replica.json<{ disks: { path: string }[] }>('vm', 'show', pair.vm)).disks[0]!.path;
  await mustRun('qemu-img', ['compare', '-U', '-f', 'qcow2', '-F', 'raw', image, replica]);
  assert.match(await mustRun('qemu-io', ['-r', '-U', '-f', 'raw', replica], { input: 'read -P 1 0 1M\nread -P 0 8M 64k\n' }), /read 1048576\/1048576/);
});
