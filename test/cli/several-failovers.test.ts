/** Several VMs with one failover command: in order, with what fails in between. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UnderstudyError } from '../../src/model/errors.ts';
import { fakeOperations, run, startFakeHost } from './fake-host.ts';

const refusal = new UnderstudyError('state', 'INVALID_STATE', 'the VM is in state Disabled', 'Enable replication first.');

test('each VM behind those that it waits for; one that fails holds up only those', async () => {
  const asked: string[] = [];
  const status = await fakeOperations().suspend({ name: 'web1' }, {} as never);
  await using host = await startFakeHost({
    failover: ({ name, kind }) => {
      asked.push(`${kind} ${name}`);
      return name === 'db' ? Promise.reject(refusal) : Promise.resolve({ ...status, vmName: name });
    },
  });
  const words = ['failover', 'web1', 'app', 'db', 'mail', '--planned', '--after', 'web1=app', '--after', 'app=db', '--wait', '0'];
  const scripted = await run([...words, '--json'], { dataFolder: host.dataFolder });
  assert.equal(scripted.code, 3);
  assert.deepEqual(asked, ['planned db', 'planned mail']);
  const results = scripted.json() as { vmName: string; state?: string; error?: { code: string } }[];
  assert.deepEqual(results.map(({ vmName, error }) => [vmName, error?.code ?? 'done']),
    [['db', 'INVALID_STATE'], ['app', 'FAILOVER_SKIPPED'], ['web1', 'FAILOVER_SKIPPED'], ['mail', 'done']]);
  const read = await run(words, { dataFolder: host.dataFolder });
  assert.match(read.stdout, /db: INVALID_STATE: the VM is in state Disabled\n→ Enable replication first\./);
  assert.match(read.stdout, /app: FAILOVER_SKIPPED: .*'db'/);
});

test('a single name keeps the single object', async () => {
  await using host = await startFakeHost({});
  const { code, json } = await run(['failover', 'web1', '--json'], { dataFolder: host.dataFolder });
  assert.equal(code, 0);
  assert.equal((json() as { vmName: string }).vmName, 'web1');
});
