import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UnderstudyError } from '../../model/errors.ts';
import type { ProgramResult, Programs } from '../../model/ports.ts';
import { openAgentOfDomain } from './agent-of-domain.ts';

const answering = (asked: string[][], ...answers: Partial<ProgramResult>[]): Programs => ({
  run: async (_path, args) => {
    asked.push([...args]);
    return { exitCode: 0, stdout: '{"return":{}}\n', output: '', timedOut: false, ...answers[asked.length - 1] };
  },
});
const SETTINGS = { libvirtUri: 'qemu:///system' };
const coded = (code: string) => (error: UnderstudyError) => error.code === code;

test('the agent of a domain is asked through virsh, with a time limit of its own', async () => {
  const asked: string[][] = [];
  const channel = await openAgentOfDomain(answering(asked, {}, { stdout: '{"return":2}' }), SETTINGS, 'web1', 3000);
  assert.equal(await channel.call('guest-fsfreeze-freeze', null, 4500), 2);
  assert.deepEqual(asked.map((words) => words.slice(3)), [['qemu-agent-command', 'web1', '{"execute":"guest-ping"}', '--timeout', '3'],
    ['qemu-agent-command', 'web1', '{"execute":"guest-fsfreeze-freeze"}', '--timeout', '5']]);
});

test('a domain that is off is told from an agent that is not there: nobody waits in it to be thawed', async () => {
  for (const output of ['error: Requested operation is not valid: domain is not running', "error: failed to get domain 'web1'"]) {
    await assert.rejects(openAgentOfDomain(answering([], { exitCode: 1, output }), SETTINGS, 'web1', 3000), (error: UnderstudyError) =>
      error.code === 'GUEST_AGENT_UNREACHABLE' && (error.cause as { code?: string }).code === 'ENOENT');
  }
  const deaf = { exitCode: 1, output: 'error: Guest agent is not responding: QEMU guest agent is not connected' };
  await assert.rejects(openAgentOfDomain(answering([], deaf), SETTINGS, 'web1', 3000), coded('GUEST_AGENT_ERROR'));
  await assert.rejects(openAgentOfDomain(answering([], { timedOut: true, exitCode: null }), SETTINGS, 'web1', 3000), coded('GUEST_AGENT_SILENT'));
  await assert.rejects(openAgentOfDomain(answering([], { stdout: 'no JSON' }), SETTINGS, 'web1', 3000), coded('GUEST_AGENT_GARBAGE'));
});
