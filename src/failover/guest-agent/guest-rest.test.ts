import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { hostClock } from '../../disk/host-clock.ts';
import type { VmRecord } from '../../model/records.ts';
import type { AgentChannel } from './agent-channel.ts';
import { GuestRest, type GuestRestParts } from './guest-rest.ts';

test('a freeze is thawed by the agent that was asked for it, also when the setting has changed and the server was killed meanwhile', async () => {
  const values = new Map<string, unknown>();
  let vm = { vmId: 'v', name: 'vm', hypervisor: { guestAgent: '/run/first' } } as unknown as VmRecord;
  const frozen = new Set<string>();
  const agentAt = (path: string): AgentChannel => ({
    call: (command) => {
      if (command === 'guest-fsfreeze-freeze') frozen.add(path);
      else if (command === 'guest-fsfreeze-thaw') frozen.delete(path);
      return command === 'guest-fsfreeze-status' ? Promise.resolve(frozen.has(path) ? 'frozen' : 'thawed') : Promise.resolve(1);
    },
    close: () => undefined,
  });
  const log = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
  const rest = (): GuestRest => new GuestRest({
    relationships: { note: () => undefined, catalog: {
      vms: { list: () => [vm], get: () => vm }, value: (key: string) => values.get(key),
      setValue: (key: string, value: unknown) => void (value === null ? values.delete(key) : values.set(key, structuredClone(value))) } },
    clock: hostClock, log, agentOf: ({ hypervisor }: VmRecord) => async () => agentAt(hypervisor!.guestAgent!),
  } as unknown as GuestRestParts);

  const killed = rest();
  const cutting = Promise.withResolvers<void>();
  // The server dies between freeze and thaw.
  void killed.cut(vm, 60_000, async () => {
    cutting.resolve();
    await new Promise(() => undefined);
  }).catch(() => undefined);
  await cutting.promise;
  killed.close();
  frozen.add('/run/first');
  assert.equal(values.size, 1);
  vm = { ...vm, hypervisor: { ...vm.hypervisor!, guestAgent: '/run/second' } };
  rest().start();
  for (let look = 0; look < 200 && frozen.size > 0; look++) await setTimeout(10);
  assert.deepEqual([...frozen], []);
  assert.equal(values.size, 0);
});
