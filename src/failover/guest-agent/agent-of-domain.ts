/** The agent of a libvirt domain: libvirt holds its socket, so it is asked through virsh, which synchronises by itself. */
import { UnderstudyError } from '../../model/errors.ts';
import type { HypervisorSettings } from '../../model/hypervisor.ts';
import type { Programs } from '../../model/ports.ts';
import { PROGRAM_PATH, startedAs } from '../adapters/command.ts';
import { garbage, parsed, silent, type AgentChannel } from './agent-channel.ts';

/** virsh counts whole seconds; it is killed a little after them. */
const MORE_MS = 1000;

export async function openAgentOfDomain(
  programs: Programs, { libvirtUri }: Pick<HypervisorSettings, 'libvirtUri'>, domain: string, timeoutMs: number, virsh = 'virsh',
): Promise<AgentChannel> {
  const channel: AgentChannel = {
    async call(execute, args, callMs) {
      const seconds = Math.max(1, Math.ceil(callMs / 1000));
      const line = JSON.stringify({ execute, ...(args === null ? {} : { arguments: args }) });
      const words = ['--connect', libvirtUri, '--quiet', 'qemu-agent-command', domain, line, '--timeout', String(seconds)];
      const result = await startedAs(virsh, () =>
        programs.run(virsh, words, { env: { PATH: PROGRAM_PATH, LC_ALL: 'C' }, timeoutMs: seconds * 1000 + MORE_MS }));
      if (result.timedOut) throw silent(`domain '${domain}'`, execute, callMs);
      if (result.exitCode !== 0) throw refused(domain, execute, result.output);
      const answer = parsed(result.stdout);
      if (answer !== null && 'return' in answer) return answer.return;
      throw garbage(`domain '${domain}'`, result.stdout);
    },
    close: () => undefined,
  };
  await channel.call('guest-ping', null, timeoutMs);
  return channel;
}

function refused(domain: string, execute: string, output: string): UnderstudyError {
  // As a socket that nobody listens at: there is no guest.
  const gone = /domain is not running|failed to get domain/i.test(output);
  const cause = gone ? Object.assign(new Error('no guest'), { code: 'ENOENT' }) : new Error(output);
  const line = output.split('\n').findLast((text) => text.trim() !== '') ?? '';
  return new UnderstudyError('io', gone ? 'GUEST_AGENT_UNREACHABLE' : 'GUEST_AGENT_ERROR',
    `${execute} for the agent of domain '${domain}' failed: ${line.replace(/\p{Cc}+/gu, ' ').trim().slice(0, 300)}`,
    'See that the guest runs, and qemu-ga in it; the domain needs a channel org.qemu.guest_agent.0.', { cause });
}
