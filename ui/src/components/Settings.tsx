/** Settings of one worker, each with a dialog: it shows the current value, and checks the new one before sending it. */

import { Button, HStack } from "@chakra-ui/react";
import { useState } from "react";
import { act, path, Problem } from "../api";
import { labelsIn, namesIn, pairs } from "../format";
import type { Worker } from "../types";
import { words } from "../words";
import { Dialog } from "./Dialog";

const SETTINGS = ["queues", "labels", "bundles", "slots"] as const;
export type Setting = (typeof SETTINGS)[number];

/** Return the current value as the text that a user would type. */
export function formatSetting(setting: Setting, worker: Worker): string {
  switch (setting) {
    case "queues":
      return worker.queues.join(", ");
    case "labels":
      return pairs(worker.labels).join(", ");
    case "bundles":
      return (worker.bundles ?? []).join(", ");
    case "slots":
      return worker.slots_limit === null ? "" : String(worker.slots_limit);
  }
}

/** Return the request body for *text*; throw a problem that says what to type if *text* is not valid. */
export function parseSetting(setting: Setting, text: string): object {
  const names = namesIn(text);
  switch (setting) {
    case "queues":
      if (!names.length) break;
      return { queues: names };
    case "labels": {
      const labels = labelsIn(text);
      if (!labels) break;
      return { labels };
    }
    case "bundles":
      return { bundles: names.length ? names : null };
    case "slots":
      if (!/^\s*\d*\s*$/.test(text)) break;
      return { slots: text.trim() ? Number(text) : null };
  }
  throw new Problem(words().invalidInput[setting], 0, "invalid");
}

export function Settings({ worker, onDone }: { worker: Worker; onDone: () => void }) {
  const [edited, setEdited] = useState<Setting>();
  const { actions, explanations, prompts } = words();
  return (
    <HStack gap="2" wrap="wrap">
      {SETTINGS.map((setting) => (
        <Button key={setting} onClick={() => setEdited(setting)} size="xs" variant="outline">
          {actions[setting]}
        </Button>
      ))}
      {edited ? (
        <Dialog
          explanation={explanations[edited]}
          fields={[{ name: "text", label: prompts[edited], value: formatSetting(edited, worker) }]}
          onClose={() => setEdited(undefined)}
          onConfirm={async ({ text }) => {
            await act("PUT", path("workers", worker.name, edited === "slots" ? "slots-limit" : edited), parseSetting(edited, text));
            onDone();
          }}
          title={actions[edited]}
        />
      ) : null}
    </HStack>
  );
}
