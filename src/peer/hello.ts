/**
 * The first words between two hosts: who, which protocol, and whether their clocks agree enough for recovery points to
 * make sense.
 */
import { z } from 'zod';
import { UnderstudyError } from '../model/errors.ts';
import type { Clock } from '../model/ports.ts';
import type { PeerDispatcher } from './dispatcher.ts';
import type { CallOptions, PeerLink } from './link.ts';
import { PROTOCOL_VERSION } from './message.ts';
import type { PeerMessage } from './message.ts';

export interface HostGreeting {
  hostName: string;
  /** Changes with every boot of the machine. */
  bootId: string;
}

export interface MetHost extends HostGreeting {
  /** The other clock minus ours, milliseconds; half a round trip inexact. */
  skewMs: number;
}

/** Times of recovery points, windows of resyncs and certificates are compared across hosts. */
export const CLOCK_SKEW_MS_MAX = 5 * 60_000;
/** The range of a JavaScript date, so that any accepted time can be shown. */
const TIME_MS_MAX = 8.64e15;

const greetingSchema = z.object({
  protocol: z.number().int().min(1).max(0xffff),
  hostName: z.string().min(1).max(255).regex(/^[\x21-\x7e]+$/),
  bootId: z.string().min(1).max(64).regex(/^[\x21-\x7e]+$/),
  clockMs: z.number().int().min(-TIME_MS_MAX).max(TIME_MS_MAX),
});
type Greeting = z.infer<typeof greetingSchema>;

export const helloMessage: PeerMessage<Greeting, Greeting> = {
  name: 'hello', params: greetingSchema, result: greetingSchema, payloadBytesMax: 0, replyBytesMax: 0,
};

/** Answers hello; refuses a caller of another protocol or with a clock far off. */
export function handleHello(dispatcher: PeerDispatcher, self: HostGreeting, clock: Clock): void {
  dispatcher.handle(helloMessage, async (_caller, theirs) => {
    const clockMs = Math.round(clock.now());
    checkProtocol(theirs);
    checkClockSkew(clockMs, theirs.clockMs, theirs.hostName);
    return { result: { protocol: PROTOCOL_VERSION, ...self, clockMs } };
  });
}

/** Greets the other host. Throws PEER_PROTOCOL_MISMATCH or CLOCK_SKEW (peer), or what `link.call` throws. */
export async function greet(link: PeerLink, self: HostGreeting, clock: Clock, options: CallOptions = {}): Promise<MetHost> {
  const askedAt = clock.monotonic();
  const clockMs = Math.round(clock.now());
  const { result: theirs } = await link.call(helloMessage, { protocol: PROTOCOL_VERSION, ...self, clockMs }, undefined, options);
  // The other clock was read between asking and hearing; half-way is the best guess.
  const ownMs = Math.round(clockMs + (clock.monotonic() - askedAt) / 2);
  checkProtocol(theirs);
  checkClockSkew(ownMs, theirs.clockMs, theirs.hostName);
  return { hostName: theirs.hostName, bootId: theirs.bootId, skewMs: theirs.clockMs - ownMs };
}

function checkProtocol(theirs: Greeting): void {
  if (theirs.protocol === PROTOCOL_VERSION) return;
  throw new UnderstudyError('peer', 'PEER_PROTOCOL_MISMATCH',
    `${theirs.hostName} speaks peer protocol ${theirs.protocol}, this host ${PROTOCOL_VERSION}`,
    'Bring both hosts to the same version of understudy.');
}

export function checkClockSkew(ownMs: number, theirMs: number, hostName: string): void {
  const skewMs = theirMs - ownMs;
  if (Math.abs(skewMs) <= CLOCK_SKEW_MS_MAX) return;
  const [own, their] = [ownMs, theirMs].map((ms) => new Date(ms).toISOString());
  throw new UnderstudyError('peer', 'CLOCK_SKEW',
    `the clock of ${hostName} shows ${their}, the other host's ${own}: ${Math.abs(Math.round(skewMs / 1000))} s apart, ` +
    `at most ${CLOCK_SKEW_MS_MAX / 1000} s are allowed`,
    'Set both clocks by NTP (timedatectl set-ntp true), then repeat.');
}
