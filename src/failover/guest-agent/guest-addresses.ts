/**
 * Gives a guest its addresses after a failover (IP injection), through its agent: waits until the guest has booted, finds each card by its
 * MAC or its name, and sets the address with `ip` in the guest. It lasts until the guest is restarted or its own network service sets
 * another one. Nothing of it holds a failover up; a failure is told and stays on record.
 *
 * What is run in the guest is one fixed script; addresses reach it as its arguments, never as part of its text.
 */
import { UnderstudyError } from '../../model/errors.ts';
import type { GuestAddress } from '../../model/hypervisor.ts';
import type { Clock } from '../../model/ports.ts';
import type { AgentChannel } from './agent-channel.ts';

/** From the start of the guest until its agent answers: a boot, with a check of its disks. */
export const BOOT_MS = 300_000;
const ASK_AGAIN_MS = 2000;
const ANSWER_MS = 5000;
/** What the script may take. */
const SCRIPT_MS = 30_000;
const SCRIPT_LOOK_MS = 250;

/** `$1` interface, `$2` address/prefix, `$3` gateway or `-`, the rest name servers. */
export const SCRIPT = `set -e
card=$1 address=$2 gateway=$3
shift 3
ip link set dev "$card" up
ip addr flush dev "$card" scope global
ip addr add "$address" dev "$card"
if [ "$gateway" != - ]; then ip route replace default via "$gateway" dev "$card"; fi
if [ $# -gt 0 ]; then
  if command -v resolvectl >/dev/null 2>&1 && resolvectl dns "$card" "$@" 2>/dev/null; then exit 0; fi
  for server in "$@"; do echo "nameserver $server"; done > /etc/resolv.conf
fi`;

export interface AddressParts {
  clock: Clock;
  open(timeoutMs: number): Promise<AgentChannel>;
  signal: AbortSignal;
  /** What the MAC of a card is in this guest: a test guest has others. */
  macOf(mac: string): string;
}

interface Card { name: string; mac: string }

/** @throws GUEST_AGENT_SILENT and its kin, GUEST_CARD_NOT_FOUND, GUEST_ADDRESS_REFUSED; the signal's reason */
export async function giveAddresses(parts: AddressParts, addresses: readonly GuestAddress[]): Promise<void> {
  const channel = await whenBooted(parts);
  try {
    const cards = cardsIn(await channel.call('guest-network-get-interfaces', null, ANSWER_MS));
    for (const address of addresses) {
      const wanted = address.card.includes(':') ? parts.macOf(address.card) : address.card;
      const card = cards.find(({ name, mac }) => name === wanted || mac === wanted.toLowerCase());
      if (card === undefined) throw cardNotFound(wanted, cards);
      await runScript(parts, channel, card.name, address);
    }
  } finally {
    channel.close();
  }
}

async function whenBooted({ clock, open, signal }: AddressParts): Promise<AgentChannel> {
  const end = clock.monotonic() + BOOT_MS;
  for (;;) {
    signal.throwIfAborted();
    try {
      return await open(ANSWER_MS);
    } catch (error) {
      if (!(error instanceof UnderstudyError) || clock.monotonic() > end) throw error;
    }
    await clock.sleep(ASK_AGAIN_MS, signal);
  }
}

async function runScript({ clock, signal }: AddressParts, channel: AgentChannel, card: string, { address, prefix, gateway, dns }: GuestAddress): Promise<void> {
  const arg = ['-c', SCRIPT, 'understudy', card, `${address}/${prefix}`, gateway ?? '-', ...dns];
  const started = await channel.call('guest-exec', { 'path': '/bin/sh', arg, 'capture-output': true }, ANSWER_MS) as { pid?: unknown } | null;
  const end = clock.monotonic() + SCRIPT_MS;
  for (;;) {
    const status = await channel.call('guest-exec-status', { pid: started?.pid }, ANSWER_MS) as Record<string, unknown> | null;
    if (status?.['exited'] === true) {
      if (status['exitcode'] === 0) return;
      throw refused(card, address, `exit code ${String(status['exitcode'])}: ${textOf(status['err-data'])}`);
    }
    if (clock.monotonic() > end) throw refused(card, address, `it has not ended in ${SCRIPT_MS / 1000} s`);
    await clock.sleep(SCRIPT_LOOK_MS, signal);
  }
}

/** What a guest says of itself is looked at with care. */
function cardsIn(answer: unknown): Card[] {
  if (!Array.isArray(answer)) return [];
  return answer.flatMap((entry: unknown) => {
    const { name, 'hardware-address': mac } = (entry ?? {}) as Record<string, unknown>;
    return typeof name === 'string' && /^[a-zA-Z][\w.-]{0,14}$/.test(name) ? [{ name, mac: typeof mac === 'string' ? mac.toLowerCase() : '' }] : [];
  });
}

function textOf(data: unknown): string {
  const text = typeof data === 'string' ? Buffer.from(data, 'base64').toString('utf8') : '';
  return (text.split('\n').findLast((line) => line.trim() !== '') ?? 'it said nothing').replace(/\p{Cc}+/gu, ' ').slice(0, 200);
}

function cardNotFound(card: string, cards: readonly Card[]): UnderstudyError {
  const found = cards.map(({ name, mac }) => `${name} (${mac})`).join(', ') || 'none';
  return new UnderstudyError('io', 'GUEST_CARD_NOT_FOUND', `the guest has no network card ${card}, but ${found}`,
    'Name one of them: understudy set NAME --guest-address CARD=ADDRESS/PREFIX.');
}

const refused = (card: string, address: string, why: string): UnderstudyError =>
  new UnderstudyError('io', 'GUEST_ADDRESS_REFUSED', `the guest did not take ${address} for ${card}: ${why}`,
    'The guest needs a shell and ip (iproute2), and qemu-ga must allow guest-exec.');

