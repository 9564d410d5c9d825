/** Names, each as a tag: queues, labels, bundles. */

import { Badge, HStack } from "@chakra-ui/react";

export function Tags({ names }: { names: readonly string[] }) {
  return (
    <HStack gap="1" wrap="wrap">
      {names.map((name) => (
        <Badge key={name} variant="outline">
          {name}
        </Badge>
      ))}
    </HStack>
  );
}
