/** A paired host that answers wrongly: the caller gets an error that says so, never a hang or a crash. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { createServer } from 'node:tls';
import { z } from 'zod';
import type { UnderstudyError } from '../../src/model/errors.ts';
import type { PeerMessage } from '../../src/peer/message.ts';
import { TlsPeerLink } from '../../src/peer/tls-link.ts';
import { identityOf, realClock } from './rig.ts';

const ask: PeerMessage<{ n: number }, { n: number }> = {
  name: 'ask', params: z.object({ n: z.int() }), result: z.object({ n: z.int() }), payloadBytesMax: 0, replyBytesMax: 4,
};
const stream = { name: 'compare', params: z.object({}) };

function frame(json: string, payload = ''): string {
  const header = Buffer.alloc(8);
  header.writeUInt32BE(json.length, 0);
  header.writeUInt32BE(payload.length, 4);
  return header.toString('latin1') + json + payload;
}
const reply = (body: string, status = '200 OK') => `HTTP/1.1 ${status}\r\nContent-Length: ${body.length}\r\n\r\n${body}`;

/** The pinned host, which answers every request head with `answer` and then hangs up. */
async function answering(answer: string, what: (link: TlsPeerLink) => Promise<unknown>): Promise<UnderstudyError> {
  const [primary, replica] = [await identityOf('primary'), await identityOf('replica')];
  const server = createServer({ ...replica.tlsOptions(), requestCert: true, rejectUnauthorized: false }, (socket) => {
    socket.on('error', () => {});
    socket.once('data', () => socket.end(Buffer.from(answer, 'latin1')));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  const to = { host: '127.0.0.1', port, fingerprint: replica.fingerprint };
  const link = new TlsPeerLink({ ...to, identity: primary, clock: realClock });
  try {
    await what(link);
  } catch (error) {
    return error as UnderstudyError;
  } finally {
    await link.close();
    server.close();
  }
  return assert.fail('it was believed');
}

test('a reply that is not one is refused, whatever it is', async () => {
  const wrong: [string, string, RegExp][] = [
    ['SSH-2.0-x\r\n\r\n', 'PEER_REPLY_INVALID', /something else than HTTP/],
    ['', 'PEER_LINK_LOST', /ECONNRESET|hang up/],
    ['HTTP/1.1 100 Continue\r\n\r\n', 'PEER_LINK_LOST', /./],
    ['HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n', 'PEER_REPLY_INVALID', /999999999999 bytes, at most 262156/],
    ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', 'PEER_REPLY_INVALID', /NaN bytes/],
    ['HTTP/1.1 200 OK\r\n\r\nwithout a length', 'PEER_REPLY_INVALID', /NaN bytes/],
    [`HTTP/1.1 200 OK\r\nX: ${'x'.repeat(20_000)}\r\n\r\n`, 'PEER_REPLY_INVALID', /HPE_HEADER_OVERFLOW/],
    ['HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\nshort', 'PEER_LINK_LOST', /./],
    [reply('short'), 'PEER_REPLY_INVALID', /fewer than the 8/],
    [reply(frame('{"result":{"n":1}}', '12345')), 'PEER_REPLY_INVALID', /payload of 5 bytes, at most 4/],
    [reply(frame('{"result":{"n":"1"}}')), 'PEER_REPLY_INVALID', /n: /],
    [reply(frame('{')), 'PEER_REPLY_INVALID', /cannot be parsed/],
    [reply('<html>', '502 Bad Gateway'), 'PEER_REPLY_INVALID', /./],
    ['HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n', 'PEER_LINK_LOST', /./],
  ];
  for (const [answer, code, message] of wrong) {
    const error = await answering(answer, (link) => link.call(ask, { n: 1 }));
    assert.deepEqual([error.kind, error.code], ['peer', code], `${answer.slice(0, 60)} → ${error.message}`);
    assert.match(error.message, message);
  }
});

test('a stream that is not opened as agreed is refused', async () => {
  const wrong: [string, string][] = [
    ['', 'PEER_LINK_LOST'],
    ['SSH-2.0-x\r\n\r\n', 'PEER_REPLY_INVALID'],
    [reply(frame('{"result":{}}')), 'PEER_REPLY_INVALID'],
    [reply(frame('{"error":{"kind":"state","code":"BUSY","message":"m","remedy":"r"}}'), '400 Bad Request'), 'BUSY'],
    ['HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n', 'PEER_REPLY_INVALID'],
  ];
  for (const [answer, code] of wrong) {
    const error = await answering(answer, (link) => link.stream(stream, {}));
    assert.equal(error.code, code, answer.slice(0, 60));
  }
});
