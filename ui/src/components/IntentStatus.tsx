/** A worker's intent, who set it and why, and whether the worker has received it. */

import { Box, Text } from "@chakra-ui/react";
import { moment } from "../format";
import type { Worker } from "../types";
import { words } from "../words";

export function IntentStatus({ worker }: { worker: Worker }) {
  const setBy = worker.intent_by ? words().setBy(worker.intent_by, worker.intent_reason) : "";
  return (
    <Box>
      <Text as="span">{words().intent[worker.intent]}</Text>
      {worker.intent_until ? <Text as="span">{` ${words().until(moment(worker.intent_until))}`}</Text> : null}
      {worker.intent === "serve" ? null : (
        <Text color="fg.muted" fontSize="xs">
          {setBy}
        </Text>
      )}
      {worker.intent_heard || worker.presence === "gone" ? null : (
        <Text color="fg.warning" fontSize="xs">
          {words().notes.notReceived}
        </Text>
      )}
    </Box>
  );
}
