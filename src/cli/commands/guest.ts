/** Guests, started and stopped through the adapter. */
import { define, option } from '../command.ts';
import type { CommandDefinition } from '../command.ts';
import { reportGuest } from '../guest-text.ts';
import { statusList } from '../status-text.ts';

const nameHelp = { name: 'name of the virtual machine' };

export const guestCommands: CommandDefinition[] = [
  define<{ test?: true }>({
    path: 'guest start',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'Start the guest on the disks that are served here, through the adapter.',
    details:
      'A failover does this by itself; here it can be tried again after a failure. A guest that runs already is success. Refused on a side ' +
      'that keeps guests out, and while its disks are not served.',
    options: [option('--test', 'the guest of the test failover')],
    examples: ['guest start web1', 'guest start web1 --test'],
    async run(context, [name], { test }) {
      const { call, output, zone } = context;
      const status = await call('guest.start', { name: name!, ...(test === true ? { test } : {}) });
      output.print(status, () => statusList(status, output, zone));
      return reportGuest(context, status, test === true);
    },
  }),
  define<{ test?: true; now?: true }>({
    path: 'guest stop',
    arguments: '<name>',
    argumentHelp: nameHelp,
    summary: 'Shut the guest down, through the adapter, and wait until it is off.',
    options: [option('--test', 'the guest of the test failover: off at once'), option('--now', 'off at once, as if its power failed')],
    examples: ['guest stop web1', 'guest stop web1 --now'],
    async run({ call, output, zone }, [name], { test, now }) {
      const status = await call('guest.stop', { name: name!, ...(test === true ? { test } : {}), ...(now === true ? { now } : {}) });
      output.print(status, () => statusList(status, output, zone));
    },
  }),
];
