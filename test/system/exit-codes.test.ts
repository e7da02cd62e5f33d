/**
 * The exit codes of the contract, command by command, from two real hosts: an unknown VM, disk or point is bad input (2); the right name
 * in the wrong state or on the wrong side is refused (3), naming the state, or the host where it belongs.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { COMMANDS } from '../../src/cli/program.ts';
import { Pair } from '../rig/pair.ts';
import type { TestServer } from '../rig/server.ts';

const F = 'AB'.repeat(32);
/** What a command needs besides the name. */
const MORE: Record<string, string[]> = {
  'enable': ['--replica', '127.0.0.1:1', '--fingerprint', F], 'extend': ['--replica', '127.0.0.1:1', '--fingerprint', F],
  'import': ['--from', '/nowhere'], 'set': ['--frequency', '30'], 'vm resize': ['--disk', '/nowhere', '--size', '1G'],
};
/** They take a new name, or none of a VM. */
const NOT_OF_A_VM = ['vm add', 'token add', 'token remove'];
const NAMED = COMMANDS.filter(({ path, arguments: words = '' }) => /^[<[]name/.test(words) && !NOT_OF_A_VM.includes(path))
  .map(({ path }) => [...path.split(' '), 'NAME', ...(MORE[path] ?? [])]);

const ON_PRIMARY = [['suspend'], ['resume'], ['cancel-resync'], ['set', '--frequency', '300'], ['start'], ['sync-now'], ['failover', '--prepare']];
const ON_REPLICA = [['failover'], ['failover', '--test'], ['failover', '--planned'], ['reverse'], ['import', '--from', '/nowhere']];
const OF_REPLICATION = [...ON_PRIMARY, ...ON_REPLICA, ['failover cancel'], ['failover complete'], ['verify'], ['remove']];

interface Answer {
  error?: { code: string; message: string; remedy: string };
}

async function ask(host: TestServer, exit: number, words: string[]): Promise<{ code: string; text: string }> {
  const { status, stdout, stderr } = await host.cli(...words, '--json');
  const { error } = JSON.parse(stdout) as Answer;
  assert.equal(status, exit, `${host.name}: ${words.join(' ')}: ${stdout}${stderr}`);
  return { code: error?.code ?? '', text: `${error?.message}\n${error?.remedy}` };
}

const typed = ([path, ...more]: string[], name: string): string[] => [...path!.split(' '), name, ...more];

test('exit codes: unknown names, VMs without replication, the wrong side', { timeout: 180_000 }, async (t) => {
  const pair = await Pair.make(t, { sizes: [4 << 20], inside: true });
  const { primary, replica, vm } = pair;

  assert.ok(NAMED.length > 30, 'the commands about a VM were not found');
  for (const words of NAMED) {
    const { code } = await ask(primary, 2, words.map((word) => (word === 'NAME' ? 'nobody' : word)));
    assert.equal(code, 'VM_NOT_FOUND', words.join(' '));
  }
  await pair.makeDisks([4 << 20]);
  await primary.json('vm', 'add', 'lonely', '--disk', pair.disks[1]!);
  for (const words of OF_REPLICATION) {
    const { text } = await ask(primary, 3, typed(words, 'lonely'));
    assert.match(text, /Disabled/, words.join(' '));
  }
  for (const words of ON_PRIMARY) {
    const { text } = await ask(replica, 3, typed(words, vm));
    assert.match(text, new RegExp(`host primary:${primary.peerPort}`), words.join(' '));
  }
  for (const words of ON_REPLICA) {
    const { text } = await ask(primary, 3, typed(words, vm));
    assert.match(text, new RegExp(`host replica:${replica.peerPort}`), words.join(' '));
  }
  const unknownDisk = join(pair.folder, 'no-disk.raw');
  assert.equal((await ask(primary, 2, ['enable', 'lonely', '--replica', '127.0.0.1:1', '--fingerprint', F, '--exclude-disk', unknownDisk])).code, 'DISK_NOT_FOUND');
  await pair.replicate();
  assert.equal((await ask(replica, 2, ['failover', vm, '--point', 'no-point'])).code, 'POINT_NOT_FOUND');
});
