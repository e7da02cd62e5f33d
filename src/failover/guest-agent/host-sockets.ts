/** Unix sockets of this host, as they really are. */
import { once } from 'node:events';
import { connect } from 'node:net';
import type { LocalSockets } from '../../model/ports.ts';

export const hostSockets: LocalSockets = {
  async connect(path) {
    const socket = connect({ path });
    await once(socket, 'connect');
    return socket;
  },
};
