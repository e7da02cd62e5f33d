import assert from 'node:assert/strict';
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { atEnd } from '../../../test/rig/at-end.ts';
import { hostClock } from '../../disk/host-clock.ts';
import { UnderstudyError } from '../../model/errors.ts';
import { adapterSuite, assertEnded, guestOf, type AdapterWorld } from './adapters.suite.ts';
import { commandAdapter } from './command.ts';
import { hostPrograms, TAIL_CHARS_MAX } from './host-programs.ts';

/** Keeps a file per guest that is on; with a file `broken` it does what that says. */
const SCRIPT = `#!/bin/sh
cd "$(dirname "$0")" || exit 9
case "$(cat broken 2>/dev/null)" in
  fails) echo "making it ready"; echo "no such bridge: br7" >&2; exit 7 ;;
  hangs) echo "waiting for the bridge"; sh -c 'trap "" TERM; echo $$ > left; exec sleep 1000' & wait ;;
esac
case "$1" in
  start | start-test) touch "on.$UNDERSTUDY_GUEST_NAME" ;;
  stop | power-off | stop-test) rm -f "on.$UNDERSTUDY_GUEST_NAME" ;;
  *) exit 2 ;;
esac
`;

async function script(t: TestContext, text: string): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'understudy-adapter-'));
  atEnd(t, () => rm(folder, { recursive: true, force: true }));
  const path = join(folder, 'guest');
  await writeFile(path, text);
  await chmod(path, 0o755);
  return path;
}

const adapterOf = (command: string, timeoutSec = 1) => commandAdapter(hostPrograms(hostClock), { command, timeoutSec });
const { signal } = new AbortController();

adapterSuite('command', async (t): Promise<AdapterWorld> => {
  const path = await script(t, SCRIPT);
  const folder = join(path, '..');
  return {
    adapter: adapterOf(path),
    runs: async (name) => (await readdir(folder)).includes(`on.${name}`),
    breakIt: (how) => writeFile(join(folder, 'broken'), how),
    assertNothingLeft: () => assertEnded(join(folder, 'left')),
  };
});

test('the program is told the guest, its disks and nothing of the server', async (t) => {
  const path = await script(t, '#!/bin/sh\nenv\n');
  process.env['SECRET_OF_THE_SERVER'] = 'hush';
  atEnd(t, () => delete process.env['SECRET_OF_THE_SERVER']);
  const said = await adapterOf(path, 10).start(guestOf({ test: true }), signal);
  assert.match(said, /^UNDERSTUDY_ACTION=start-test$/m);
  assert.match(said, /^UNDERSTUDY_VM_NAME=web1$/m);
  assert.match(said, /^UNDERSTUDY_GUEST_NAME=web1 - Test$/m);
  assert.match(said, /^UNDERSTUDY_TEST=1$/m);
  assert.match(said, /^UNDERSTUDY_ROLE=replica$/m);
  assert.match(said, /^UNDERSTUDY_DISKS=1$/m);
  assert.match(said, /^UNDERSTUDY_DISK_0_URI=nbd\+unix:\/\/\/web1%2F0\?socket=\/run\/nbd\.sock$/m);
  assert.doesNotMatch(said, /hush/);
  const strange = said.split('\n').map((line) => line.split('=')[0]!).filter((name) => !/^(UNDERSTUDY_\w+|PATH|LC_ALL|HOME|PWD|SHLVL|_)$/.test(name));
  assert.deepEqual(strange, []);
});

test('what stays in the background does not hold the action up, and is left alone', async (t) => {
  const path = await script(t, '#!/bin/sh\nsleep 1000 &\necho $! > "$(dirname "$0")/pid"\n');
  await adapterOf(path, 30).start(guestOf(), signal);
  const pid = Number(await readFile(join(path, '../pid'), 'utf8'));
  assert.doesNotThrow(() => process.kill(pid, 0));
  process.kill(pid, 'SIGKILL');
});

test('of endless output the end is kept, and terminal escapes do not reach a message', async (t) => {
  const path = await script(t, '#!/bin/sh\nyes 0123456789 | head -c 3000000\nprintf "\\n\\033[2Jthe end" >&2\nexit 3\n');
  await assert.rejects(adapterOf(path, 30).start(guestOf(), signal), (error: UnderstudyError) => {
    assert.match(error.message, /its last words: (\d* )?\[2Jthe end$/);
    const { output } = error.cause as { output: string };
    assert.ok(output.length <= TAIL_CHARS_MAX);
    return true;
  });
});

test('a program that is missing or not executable is an error with a remedy', async (t) => {
  const path = await script(t, '#!/bin/sh\n');
  for (const [command, errno] of [[`${path}-not`, 'ENOENT'], [join(path, '..'), 'EACCES']] as const) {
    await assert.rejects(adapterOf(command).start(guestOf(), signal), (error: UnderstudyError) => {
      assert.deepEqual([error.code, error.kind], ['ADAPTER_UNUSABLE', 'io']);
      assert.match(error.message, new RegExp(errno));
      return true;
    });
  }
});
