/** The link between two simulated hosts: delays, loss of questions and answers, cuts, and the crash of either end. */
import type { Duplex } from 'node:stream';
import { UnderstudyError } from '../../src/model/errors.ts';
import type { PeerDispatcher } from '../../src/peer/dispatcher.ts';
import { decodeReply, encodeRequest, encodeStreamParams, type PeerLink } from '../../src/peer/link.ts';
import type { Life, Scheduler } from './scheduler.ts';
import { simStream } from './sim-stream.ts';

export interface SimNetwork {
  cut: boolean;
  lossRate: number;
  delayMs: number;
}

export interface LinkEnd {
  life: Life;
  dispatcher: PeerDispatcher;
}

const TIMEOUT_MS = 20_000;

const unreachable = () => new UnderstudyError('peer', 'PEER_UNREACHABLE', 'the link is down', 'Restore the link.');

/** `far` is looked up for every message: the other host may have been restarted. */
export function simLink(scheduler: Scheduler, network: SimNetwork, near: Life, fingerprint: string, far: () => LinkEnd | null): PeerLink {
  const carry = (life: Life, arrive: () => void, lose: () => void): void => {
    if (network.cut || scheduler.dice.chance(network.lossRate)) scheduler.after(network.delayMs, life, lose);
    else scheduler.soon(network.delayMs, life, arrive);
  };
  return {
    async call(message, params, payload = new Uint8Array(0), { signal } = {}) {
      signal?.throwIfAborted();
      const request = Buffer.concat(encodeRequest(message, params, payload));
      const reply = await new Promise<Buffer>((resolve, reject) => {
        signal?.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
        const fail = () => reject(unreachable());
        scheduler.after(TIMEOUT_MS, near, fail);
        carry(near, () => {
          const end = far();
          if (end === null || !end.life.alive) return fail();
          void end.dispatcher.dispatch({ fingerprint, address: '10.0.0.1:1' }, message.name, request).then((parts) => {
            if (end.life.alive) carry(near, () => resolve(Buffer.concat(parts)), fail);
          });
        }, fail);
      });
      return decodeReply(message, reply);
    },
    async stream(message, params) {
      const opened = await new Promise<Duplex>((resolve, reject) => {
        const fail = () => reject(unreachable());
        carry(near, () => {
          const end = far();
          if (end === null || !end.life.alive) return fail();
          void end.dispatcher.openStream({ fingerprint, address: '10.0.0.1:1' }, message.name, encodeStreamParams(message, params))
            .then((answer) => {
              if ('refusal' in answer) return reject(answer.refusal);
              const [ours, theirs] = simStream(scheduler, network, near, end.life);
              void answer.run(theirs);
              resolve(ours);
            });
        }, fail);
      });
      return opened;
    },
    async close() {},
  };
}
