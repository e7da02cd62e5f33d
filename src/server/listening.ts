/**
 * Whether a server can listen where it was told to, asked before its data folder is made or a disk is touched: a server that
 * cannot serve leaves nothing behind. Who takes a port after this is still noticed when it is opened for good.
 */
import { createServer } from 'node:net';
import { peerPortUnusable } from '../peer/server.ts';
import { httpListenFailed, readTls, type HttpAddress } from './console/listener.ts';

/** @throws UnderstudyError PEER_PORT_UNUSABLE, HTTP_LISTEN_FAILED, HTTP_NEEDS_TLS and the like */
export async function checkListening({ peer, http }: { peer: { host: string; port: number }; http: HttpAddress }): Promise<void> {
  await readTls(http);
  await tryPort(peer, peerPortUnusable);
  await tryPort(http, httpListenFailed);
}

async function tryPort(
  address: { host: string; port: number }, failed: (address: { host: string; port: number }, cause: unknown) => Error,
): Promise<void> {
  const { host, port } = address;
  const probe = createServer();
  try {
    await new Promise<void>((resolve, reject) => {
      probe.once('error', reject);
      probe.listen({ host, port }, resolve);
    });
  } catch (error) {
    throw failed(address, error);
  }
  await new Promise((resolve) => probe.close(resolve));
}
